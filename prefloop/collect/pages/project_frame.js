// What the pages of one project share: its name, its state, and the way from one to the other.
import { api, el, fill, t, toast } from "./base.js";

export const path = (slug, rest = "") => `/projects/${encodeURIComponent(slug)}${rest}`;
const VIEWS = [["", "dashboard"], ["/items", "items"], ["/review", "review"], ["/setup", "setup"]];
const MAY = { dashboard: ["owner", "manager", "reviewer", "viewer"], items: ["owner", "manager", "reviewer"], review: ["owner", "manager", "reviewer"], setup: ["owner", "manager"] };

/* The project and the head of its page; `here` is the view shown. */
export async function frame(slug, here) {
  const project = await api("GET", path(slug));
  const mayManage = MAY.setup.includes(project.role);
  const tag = el("span", {});
  const change = el("span", {});
  const draw = () => {
    const kind = { active: "good", paused: "warn", draft: "warn" }[project.state] ?? "";
    fill(tag, el("span", { class: `tag ${kind}` }, t(`state.${project.state}`)));
    const next = project.state === "active" ? "paused" : "active";
    const set = async () => {
      await api("POST", path(slug, "/state"), { body: { state: next } });
      project.state = next;
      draw();
      toast(t(`project.now_${next}`));
    };
    fill(change, mayManage && el("button", { type: "button", class: next === "active" ? "button first" : "button", onclick: set, "data-act": next }, t(`project.to_${next}`)));
  };
  draw();
  const links = VIEWS.filter(([, name]) => MAY[name].includes(project.role)).map(([rest, name]) =>
    el("a", { href: path(slug, rest), "aria-current": name === here ? "page" : null }, t(`view.${name}`)));
  const head = el("header", { class: "project-head stack" },
    el("div", { class: "row" }, el("h1", { class: "grow" }, project.title || project.slug), tag, change), el("nav", { class: "views", "aria-label": t("view.label") }, links));
  document.title = `${project.title || project.slug} · ${t(`view.${here}`)} · Prefloop`;
  return { project, head, mayManage };
}

/* A job of the server, once it is done; tell(n) hears how far it is. */
export async function finished(job, tell = () => {}) {
  for (let wait = 150; ; wait = Math.min(1500, wait * 1.4)) {
    const found = await api("GET", `/jobs/${job}`);
    tell(found.n_done);
    if (!["waiting", "running"].includes(found.state)) return found;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/* Ends a job that is not done yet. What is cancelled as it ends is done: that is nobody's fault, and said by its result. */
export const cancelling = (job) => el("button", { type: "button", class: "button quiet", "data-cancel": job, onclick: async ({ target }) => {
  target.disabled = true;
  await api("POST", `/jobs/${job}/cancel`).catch((problem) => {
    if (problem.code !== "job_ended") throw problem;
  });
} }, t("job.cancel"));

/* Every page of a list that comes with a cursor, up to a number of them. */
export function more(button, load) {
  const run = async () => {
    button.disabled = true;
    const cursor = await load(button.dataset.cursor ?? "");
    button.disabled = false;
    button.hidden = !cursor;
    button.dataset.cursor = cursor ?? "";
  };
  button.addEventListener("click", run);
  return run();
}
