// My work: the projects somebody belongs to, and the next thing to do in each.
import { api, el, icon, me, page, t } from "./base.js";

const WORKS = ["manager", "reviewer", "annotator"];
const ARROW = "M5 12h14m-6-6 6 6-6 6";

page({ title: "home.title" }, async ({ main }) => {
  const roles = new Map(me.projects.map((one) => [one.slug, one.role]));
  const all = await api("GET", "/projects");
  const today = await api("GET", "/me/today");
  const head = el("div", { class: "row" }, el("h1", { class: "grow" }, t("home.hello", { name: me.display || me.login })),
    el("span", { class: "soft" }, t("home.today", { n: Object.values(today).reduce((sum, n) => sum + n, 0) })));
  const cards = all.map((one) => project(one, roles.get(one.slug) ?? (me.is_owner ? "owner" : ""), today[one.slug] ?? 0));
  const empty = el("div", { class: "sheet stack" }, el("h2", {}, t("home.none")), el("p", { class: "soft" }, t(me.is_owner ? "home.none_owner" : "home.none_other")),
    me.is_owner && el("div", {}, el("a", { class: "button first", href: "/projects" }, t("home.make"))));
  main.append(el("div", { class: "stack" }, head, cards.length ? el("ul", { class: "projects" }, cards) : empty));
});

function project(one, role, nToday) {
  const isOpen = one.state === "active" && WORKS.includes(role);
  const kind = { active: "good", paused: "warn", draft: "warn" }[one.state] ?? "";
  const start = isOpen
    ? el("a", { class: "button first", href: `/${one.live ? "chat" : "work"}/${encodeURIComponent(one.slug)}` }, t(nToday ? "home.go_on" : "home.start"), icon(ARROW))
    : role === "owner"
      ? el("button", { type: "button", class: "button", title: t("home.owner_note"), onclick: () => join(one.slug) }, t("home.join"))
      : el("span", { class: "soft small" }, t(`home.not_${WORKS.includes(role) ? "active" : "role"}`));
  return el("li", { class: "sheet row" }, el("div", { class: "grow stack tight" }, el("h2", {}, one.title || one.slug),
    el("div", { class: "row small soft" }, el("span", { class: `tag ${kind}` }, t(`state.${one.state}`)), el("span", {}, t(`role.${role || "viewer"}`)),
      el("span", {}, t("home.today", { n: nToday })))), role !== "annotator" && el("a", { class: "button", href: `/projects/${encodeURIComponent(one.slug)}` }, t("home.look")), start);
}

async function join(slug) {
  await api("PUT", `/projects/${encodeURIComponent(slug)}/members/${me.user}`, { body: { role: "manager" } });
  location.reload();
}
