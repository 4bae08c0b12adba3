// Setting a project up, step by step: questions, items (or the models of a live chat), a look at what annotators will see, people, quality, start.
import { api, ask, el, fill, labelled, me, number, page, rendered, showHtml, t, toast, words } from "./base.js";
import { gallery } from "./media.js";
import { cancelling, finished, frame, path } from "./project_frame.js";
import { chat } from "./setup_chat.js";
import { folderField, sent } from "./setup_folder.js";

const LETTERS = "abcdefghijklmnop";
const ROLES = ["annotator", "reviewer", "manager", "viewer"];

page({ title: "view.setup" }, async ({ main, place }) => {
  const slug = place.project;
  const { project, head } = await frame(slug, "setup");
  const { schema } = (await api("GET", path(slug, "/schemas"))).at(-1);
  const names = ["questions", ...(schema.live ? ["chat"] : ["items", "preview"]), "people", "quality", "start"];
  const steps = names.map((name, place_) => {
    const body = el("div", { class: "stack" });
    return [name, body, el("section", { class: "sheet step", "data-step": name }, el("h2", {}, el("span", { class: "badge" }, String(place_ + 1)), t(`setup.${name}`)), body)];
  });
  const box = Object.fromEntries(steps.map(([name, body]) => [name, body]));
  main.append(head, el("div", { class: "stack" }, steps.map(([, , section]) => section)));
  const refresh = async () => {
    if (!schema.live) await preview(slug, box.preview);
    await start(slug, project, box.start, schema.live);
  };
  const judged = schema.live ? chat(slug, box.chat) : items(slug, box.items, schema.medium, refresh);
  await Promise.all([questions(slug, box.questions, refresh), judged, people(slug, box.people), quality(slug, box.quality)]);
  await refresh();
});

// --- 1: what is asked ----------------------------------------------------------------------------------------------------------

async function questions(slug, box, changed) {
  const versions = await api("GET", path(slug, "/schemas"));
  const { version, schema } = versions.at(-1);
  const asked = schema.stages.map((stage) => el("li", {}, el("strong", {}, words(stage.title, stage.per === "completion" ? t("setup.per_answer") : t("setup.per_item"))), ": ",
    stage.questions.map(({ id, label, type }) => `${words(label, id)} (${type})`).join(", ")));
  const text = el("textarea", { class: "input code", rows: "14", spellcheck: "false", name: "schema" });
  text.value = JSON.stringify(schema, null, 2);
  const wrong = el("pre", { class: "wrong raw", role: "alert" });
  const store = async () => {
    wrong.textContent = "";
    try {
      const { version: fresh } = await api("POST", path(slug, "/schemas"), { body: { yaml: text.value } });
      toast(t("setup.stored", { n: fresh }));
      await questions(slug, box, changed);
      await changed();
    } catch (problem) {
      wrong.textContent = problem.detail || problem.message;
    }
  };
  fill(box, el("p", {}, el("strong", {}, words(schema.title, schema.id)), " · ", t("setup.version", { n: version }), " · ", t("setup.answers", { min: schema.completions.min, max: schema.completions.max })), el("ul", {}, asked),
    el("details", {}, el("summary", {}, t("setup.edit")), el("div", { class: "stack" }, el("p", { class: "small soft" }, t("setup.edit_note")), text, wrong, el("div", {}, el("button", { type: "button", class: "button", onclick: store }, t("setup.store"))))));
}

// --- 2: what is judged ---------------------------------------------------------------------------------------------------------

async function items(slug, box, medium, changed) {
  const file = el("input", { type: "file", class: "input", name: "file", accept: ".jsonl,.json,.csv,.tsv,.parquet,.gz" });
  const said = el("div", { class: "stack", role: "status" });
  let chosen = null;
  const send = async (isDry, skipBad = false) => {
    if (!chosen) return null;
    fill(said, el("p", { class: "soft" }, t(isDry ? "setup.looking" : "setup.storing")));
    const asked = new URLSearchParams({ name: chosen.name.replace(/[^\w.-]/g, "_").slice(-80), dry_run: isDry, skip_bad: skipBad });
    const answer = await fetch(`/api/v1${path(slug, `/items:import?${asked}`)}`, { method: "POST", headers: { "X-CSRF-Token": me.csrf }, body: chosen });
    const begun = await answer.json();
    if (!answer.ok) return fill(said, el("p", { class: "wrong" }, begun.detail));
    const progress = el("span", { class: "grow soft" }, t(isDry ? "setup.looking" : "setup.storing"));
    fill(said, el("div", { class: "row" }, progress, cancelling(begun.job)));
    const job = await finished(begun.job, (n) => !isDry && n && fill(progress, t("setup.stored_n", { n: number(n) })));
    return report(job, isDry, skipBad);
  };
  const report = async ({ state, result }, isDry, skipBad) => {
    if (state !== "done") return fill(said, el("pre", { class: "note bad raw" }, result.error));
    const lines = [el("p", {}, t("setup.found", { name: result.name, format: result.format, rows: number(result.rows), items: number(result.items), known: number(result.known) })),
      result.n_problems > 0 && el("div", { class: "note bad stack", "data-problems": result.n_problems }, el("strong", {}, t("setup.problems", { n: result.n_problems })), el("ul", {}, result.problems.map((one) => el("li", {}, one)))),
      Object.entries(result.remarks).map(([remark, n]) => el("p", { class: "small soft" }, `${number(n)} × ${remark}`))];
    const mayStore = isDry && result.items > result.known;
    const go = mayStore && el("button", { type: "button", class: "button first", onclick: () => send(false, result.n_problems > 0) }, t(result.n_problems ? "setup.import_rest" : "setup.import", { n: number(result.items - result.known) }));
    fill(said, lines, go, !isDry && el("p", { class: "note" }, t("setup.imported", { n: number(result.added) })));
    if (!isDry) {
      file.value = "";
      chosen = null;
      await changed();
    }
    return skipBad;
  };
  const look = (one) => {
    chosen = one;
    return send(true);
  };
  const folder = async (files) => {
    const { problems, file: lines, n } = await sent(slug, files, (done, all) => fill(said, el("p", { class: "soft" }, t("setup.folder_sending", { n: number(done), all: number(all) }))));
    if (problems.length) return fill(said, el("div", { class: "note bad stack", "data-problems": problems.length }, el("strong", {}, t("setup.problems", { n: problems.length })), el("ul", {}, problems.map((one) => el("li", {}, one))), el("span", {}, t("setup.folder_bad"))));
    return n ? look(lines) : fill(said, el("p", { class: "note bad" }, t("setup.folder_empty")));
  };
  file.addEventListener("change", () => look(file.files[0] ?? null));
  const drop = el("label", { class: "drop" }, el("strong", {}, t("setup.choose")), el("span", { class: "small soft" }, t("setup.choose_note")), file);
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    look(event.dataTransfer.files[0] ?? null);
  });
  fill(box, medium !== "text" && folderField(folder), drop, said);
}

// --- 3: what it looks like -------------------------------------------------------------------------------------------------------

async function preview(slug, box) {
  const { items: found } = await api("GET", path(slug, "/items?kind=normal"));
  if (!found.length) return fill(box, el("p", { class: "soft" }, t("setup.preview_none")));
  const [versions, one] = await Promise.all([api("GET", path(slug, "/schemas")), api("GET", `/items/${found[Math.floor(Math.random() * found.length)].id}/review`)]);
  const { schema } = versions.at(-1);
  const html = await rendered([...one.prompt.messages.map(({ content }) => content), ...one.completions.map(({ content }) => content.text ?? "")]);
  const n = one.prompt.messages.length;
  const turns = one.prompt.messages.map(({ role }, place) => el("div", {}, el("span", { class: "label" }, t(`said_by.${role}`)), showHtml(el("div", { class: "md" }), html[place])));
  const per = (kind) => schema.stages.filter((stage) => stage.per === kind).flatMap(({ questions: asked }) => asked);
  const list = (asked) => asked.length > 0 && el("p", { class: "row small" }, asked.map(({ id, label }) => el("span", { class: "tag" }, words(label, id))));
  const pictures = gallery();
  const cards = one.completions.map(({ content }, place) => el("article", { class: "card stack" }, el("span", { class: "badge" }, LETTERS[place]), content.type === "text" ? showHtml(el("div", { class: "md" }), html[n + place]) : pictures.show(content, LETTERS[place].toUpperCase()), list(per("completion"))));
  return fill(box, el("div", { class: "stack" }, turns), el("div", { class: "cards" }, cards), list(per("item")),
    el("div", { class: "row" }, el("button", { type: "button", class: "button", onclick: () => preview(slug, box) }, t("setup.another")), el("span", { class: "small soft" }, t("setup.preview_note"))));
}

// --- 4: who ------------------------------------------------------------------------------------------------------------------------

async function people(slug, box) {
  const members = await api("GET", path(slug, "/members"));
  const roles = (selected) => ROLES.map((role) => el("option", { value: role, selected: role === selected }, t(`role.${role}`)));
  const set = async (user, role) => {
    await api("PUT", path(slug, `/members/${user}`), { body: { role } });
    toast(t("setup.role_set"));
  };
  const out = async ({ user_id: user, display, login }) => {
    if (!(await ask(t("setup.take_out"), t("setup.take_out_why", { name: display || login })))) return;
    await api("DELETE", path(slug, `/members/${user}`));
    await people(slug, box);
  };
  const rows = members.map((one) => el("tr", {}, el("td", {}, one.display || one.login), el("td", { class: "soft" }, one.login), el("td", {}, el("select", { class: "input", "aria-label": t("setup.role"), onchange: ({ target }) => set(one.user_id, target.value) }, roles(one.role))),
    el("td", {}, el("button", { type: "button", class: "button quiet danger", onclick: () => out(one) }, t("setup.take_out")))));
  const role = el("select", { class: "input", "aria-label": t("setup.role"), name: "role" }, roles("annotator"));
  const link = el("div", { class: "stack", role: "status" });
  const invite = async () => {
    const made = await api("POST", path(slug, "/invites"), { body: { role: role.value } });
    const address = `${location.origin}/invite#${made.invite}`;
    const field = el("input", { class: "input", readonly: true, value: address, name: "link", "aria-label": t("setup.link") });
    fill(link, el("div", { class: "row" }, el("div", { class: "grow" }, field), el("button", { type: "button", class: "button", onclick: () => navigator.clipboard?.writeText(address).then(() => toast(t("work.copied"))) }, t("work.copy"))), el("p", { class: "small soft" }, t("setup.link_note")));
    field.select();
  };
  fill(box, members.length ? el("div", { class: "scroll" }, el("table", { class: "data" }, el("tbody", {}, rows))) : el("p", { class: "soft" }, t("setup.nobody")), el("div", { class: "row" }, role, el("button", { type: "button", class: "button", onclick: invite }, t("setup.invite"))), link);
}

// --- 5: how it is looked after -------------------------------------------------------------------------------------------------------

const SETTINGS = [["overlap_max", 0, 50, 1], ["confidence", 0, 1, "any"], ["gold_rate", 0, 0.5, "any"], ["repeat_rate", 0, 0.2, "any"], ["gold_pass", 0.01, 1, "any"], ["review_below", 0, 1, "any"], ["seconds", 0, 600, "any"], ["seconds_per_100", 0, 60, "any"]];

async function quality(slug, box) {
  const [now, planted] = await Promise.all([api("GET", path(slug, "/quality")), api("GET", path(slug, "/planted"))]);
  const inputs = SETTINGS.map(([name, min, max, step]) => [name, el("input", { class: "input", type: "number", name, min, max, step, value: now[name] })]);
  const store = async (event) => {
    event.preventDefault();
    await api("PATCH", path(slug, "/quality"), { body: Object.fromEntries(inputs.map(([name, input]) => [name, Number(input.value)])) });
    toast(t("setup.quality_stored"));
  };
  const there = Object.entries(planted).map(([kind, { items: n, judgments }]) => el("span", { class: "tag" }, t("setup.planted", { kind: t(`items.kind_${kind}`), n: number(n), judgments: number(judgments) })));
  const n = el("input", { class: "input short", type: "number", min: "1", max: "500", value: "10", "aria-label": t("setup.checks_n") });
  const plant = async () => {
    const { made } = await api("POST", path(slug, "/checks"), { body: { n: Number(n.value) } });
    toast(t("setup.checks_made", { n: made }));
    await quality(slug, box);
  };
  fill(box, el("form", { class: "stack", onsubmit: store }, el("div", { class: "fields" }, inputs.map(([name, input]) => labelled(t(`quality.${name}`), input, t(`quality.${name}_hint`)))), el("div", {}, el("button", { class: "button" }, t("setup.quality_store")))),
    el("div", { class: "row" }, there, el("span", { class: "grow small soft" }, t("setup.checks_note")), n, el("button", { type: "button", class: "button", onclick: plant }, t("setup.checks"))));
}

// --- 6: begin --------------------------------------------------------------------------------------------------------------------------

async function start(slug, project, box, isLive) {
  const [{ progress }, members] = await Promise.all([api("GET", path(slug, "/stats")), api("GET", path(slug, "/members"))]);
  const line = (isDone, text) => el("li", { class: isDone ? "done" : "open" }, text);
  const workers = members.filter(({ role }) => role !== "viewer").length;
  const answering = isLive ? await api("GET", path(slug, "/chat")) : null;
  const models = answering && (Object.keys(answering.backends).length || answering.known.length);
  const judged = isLive ? line(models > 0, t("setup.has_models", { n: models })) : line(progress.items > 0, t("setup.has_items", { n: number(progress.items) }));
  const set = async (state) => {
    await api("POST", path(slug, "/state"), { body: { state } });
    location.assign(state === "active" ? path(slug) : path(slug, "/setup"));
  };
  const states = { active: ["paused", "done"], paused: ["active", "done"], draft: ["active"], done: ["active", "archived"], archived: ["active"] }[project.state];
  fill(box, el("ul", { class: "checks plain" }, line(true, t("setup.has_questions")), judged, line(workers > 0, t("setup.has_people", { n: workers }))),
    el("div", { class: "row" }, states.map((state, place) => el("button", { type: "button", class: `button ${place === 0 ? "first" : ""}`, "data-state": state, onclick: () => set(state) }, t(`setup.to_${state}`)))));
}
