// A folder of pictures, sounds or clips from this device: every folder in it is a prompt, the files in that are its answers.
// prefloop/collect/folders.py reads a folder of the server's machine in the same way.
import { el, me, t } from "./base.js";
import { path } from "./project_frame.js";

const WORDS = "prompt.txt";
const isSeen = (place) => !place.some((part) => part.startsWith(".") || part.startsWith("__MACOSX") || part === "Thumbs.db");

/* The field where one is chosen; chosen(files) gets [{ place: ["pictures", "a sun", "a.png"], file }]. */
export function folderField(chosen) {
  const input = el("input", { type: "file", class: "input", name: "folder", webkitdirectory: true, multiple: true });
  input.addEventListener("change", () => chosen([...input.files].map((file) => ({ place: (file.webkitRelativePath || file.name).split("/"), file }))));
  const field = el("label", { class: "drop" }, el("strong", {}, t("setup.folder")), el("span", { class: "small soft" }, t("setup.folder_note")), input);
  field.addEventListener("dragover", (event) => event.preventDefault());
  field.addEventListener("drop", async (event) => {
    event.preventDefault();
    const dropped = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    chosen((await Promise.all(dropped.map((entry) => within(entry, [])))).flat());
  });
  return field;
}

async function within(entry, above) {
  const place = [...above, entry.name];
  if (entry.isFile) return [{ place, file: await new Promise((done, failed) => entry.file(done, failed)) }];
  const reader = entry.createReader();
  const found = [];
  for (let part = null; part === null || part.length; found.push(...part)) part = await new Promise((done, failed) => reader.readEntries(done, failed)); // a hundred at a time
  return (await Promise.all(found.map((one) => within(one, place)))).flat();
}

/* Send the files; a file of lines that names them, or everything that is wrong. tell(n, all) hears how far it is. */
export async function sent(slug, files, tell) {
  const seen = files.filter(({ place }) => isSeen(place)).sort((one, other) => (one.place.join("/") < other.place.join("/") ? -1 : 1));
  const prompts = new Map();
  for (const one of seen) {
    const folder = one.place.slice(0, -1).join("/");
    if (!prompts.has(folder)) prompts.set(folder, []);
    prompts.get(folder).push(one);
  }
  const problems = [];
  const lines = [];
  const all = seen.filter(({ place }) => place.at(-1) !== WORDS).length;
  let n = 0;
  for (const [folder, there] of prompts) {
    const asked = there.find(({ place }) => place.at(-1) === WORDS);
    const said = asked ? (await asked.file.text()).trim() : folder.split("/").at(-1);
    const answers = there.filter((one) => one !== asked);
    if (!asked && folder.split("/").length < 2) problems.push(`${answers[0].place.join("/")}: ${t("setup.folder_alone")}`);
    else if (!said) problems.push(`${folder}: ${t("setup.folder_words")}`);
    else {
      const id = `files:${hash(said)}`;
      const completions = [];
      for (const { place, file } of answers) {
        const answer = await upload(slug, file);
        const { sha256, medium, detail } = await answer.json();
        tell((n += 1), all);
        const source = `policy:${place.at(-1).replace(/\.[^.]*$/, "")}`;
        if (answer.ok) completions.push({ prompt_id: id, content: { type: medium, uri: place.join("/"), sha256 }, source });
        else problems.push(`${place.join("/")}: ${detail}`);
      }
      lines.push(JSON.stringify({ format_version: 1, prompt: { id, messages: [{ role: "user", content: said }] }, completions }));
    }
  }
  return { problems, file: new File([`${lines.join("\n")}\n`], `${seen[0]?.place[0] ?? "folder"}.jsonl`), n: lines.length };
}

async function upload(slug, file) {
  for (;;) {
    const answer = await fetch(`/api/v1${path(slug, "/assets")}`, { method: "POST", headers: { "X-CSRF-Token": me.csrf }, body: file });
    if (answer.status !== 429) return answer; // many small files come faster than one person may change things
    await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") ?? 1)));
  }
}

/* An id for some words; not a secret, and crypto.subtle is not there on an address without https. */
function hash(text) {
  let [one, other] = [0xdeadbeef, 0x41c6ce57];
  for (const unit of new TextEncoder().encode(text)) [one, other] = [Math.imul(one ^ unit, 2654435761), Math.imul(other ^ unit, 1597334677) ^ (one >>> 7)];
  return [one, other].map((part) => (part >>> 0).toString(16).padStart(8, "0")).join("");
}
