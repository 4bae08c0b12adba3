// The projects somebody looks after, how far each is, and a new one.
import { api, dialog, el, labelled, number, page, t, words } from "./base.js";
import { path } from "./project_frame.js";

page({ title: "projects.title" }, async ({ main, me }) => {
  const roles = new Map(me.projects.map((one) => [one.slug, one.role]));
  const mine = (await api("GET", "/projects")).filter(({ slug }) => me.is_owner || ["manager", "reviewer", "viewer"].includes(roles.get(slug)));
  const make = me.is_owner && el("button", { type: "button", class: "button first", onclick: create }, t("projects.new"));
  const list = el("ul", { class: "plain stack" }, mine.map((one) => row(one, me.is_owner ? "owner" : roles.get(one.slug))));
  const empty = el("div", { class: "sheet stack" }, el("h2", {}, t("projects.none")), el("p", { class: "soft" }, t(me.is_owner ? "projects.none_owner" : "projects.none_other")));
  main.append(el("div", { class: "stack" }, el("div", { class: "row" }, el("h1", { class: "grow" }, t("projects.title")), make), mine.length ? list : empty));
});

function row(one, role) {
  const kind = { active: "good", paused: "warn", draft: "warn" }[one.state] ?? "";
  const bar = el("span", {});
  const done = el("span", { class: "small soft" });
  api("GET", path(one.slug, "/stats")).then(({ progress }) => {
    bar.style.width = `${progress.wanted ? (100 * progress.done) / progress.wanted : 0}%`;
    done.textContent = t("dash.done_of", { done: number(progress.done), wanted: number(progress.wanted), items: number(progress.items) });
  });
  const next = one.state === "draft" && ["owner", "manager"].includes(role) ? ["/setup", "projects.set_up"] : ["", "projects.open"];
  return el("li", { class: "sheet stack", "data-project": one.slug }, el("div", { class: "row" }, el("h2", { class: "grow" }, el("a", { href: path(one.slug) }, one.title || one.slug)), el("span", { class: `tag ${kind}` }, t(`state.${one.state}`)),
    el("a", { class: "button", href: path(one.slug, next[0]) }, t(next[1]))), el("div", { class: "progress" }, bar), done);
}

async function create() {
  const templates = await api("GET", "/templates");
  const title = el("input", { class: "input", name: "title", required: true, maxlength: "200" });
  const slug = el("input", { class: "input", name: "slug", required: true, pattern: "[a-z0-9][a-z0-9\\-]{0,59}", maxlength: "60" });
  const overlap = el("input", { class: "input", name: "overlap", type: "number", min: "1", max: "50", value: "3" });
  const wrong = el("p", { class: "wrong", role: "alert" });
  let isOwn = false;
  slug.addEventListener("input", () => (isOwn = slug.value !== ""));
  title.addEventListener("input", () => !isOwn && (slug.value = title.value.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60)));
  const offered = templates.filter(({ live, medium }) => !live || medium === "text");
  const cards = el("div", { class: "templates", role: "radiogroup", "aria-label": t("projects.template") }, offered.map(({ name, title: said, medium, live }, place) => el("label", { class: "template" },
    el("input", { type: "radio", name: "template", value: name, checked: place === offered.findIndex((one) => one.name === "instructgpt") }), el("span", { class: "stack tight" }, el("strong", {}, words(said, name)),
      el("span", { class: "row small" }, el("span", { class: "tag" }, t(`medium.${medium}`)), live && el("span", { class: "tag" }, t("medium.live")), el("code", { class: "soft" }, name))))));
  const check = async (value) => {
    if (value !== "go") return true;
    const chosen = cards.querySelector("input:checked")?.value;
    try {
      await api("POST", "/projects", { body: { slug: slug.value, title: title.value, template: chosen, overlap: Number(overlap.value) } });
      location.assign(path(slug.value, "/setup"));
      return true;
    } catch (problem) {
      wrong.textContent = problem.message;
      return false;
    }
  };
  const body = [labelled(t("projects.name"), title), labelled(t("projects.slug"), slug, t("projects.slug_hint")), el("p", { class: "label" }, t("projects.template")), cards, labelled(t("projects.overlap"), overlap, t("projects.overlap_hint")), wrong];
  await dialog({ title: t("projects.new"), body, isWide: true, actions: [{ value: "no", label: t("cancel") }, { value: "go", label: t("projects.make"), kind: "first" }], check });
}
