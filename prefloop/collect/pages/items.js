// All items of a project in pages: looked for by words, filtered, and changed together.
import { api, el, fill, latest, number, page, t, toast } from "./base.js";
import { frame, path } from "./project_frame.js";

page({ title: "view.items" }, async ({ main, place }) => {
  const slug = place.project;
  const { head, mayManage } = await frame(slug, "items");
  const chosen = new Set();
  const asking = latest();
  const words = el("input", { class: "input", type: "search", name: "q", "aria-label": t("items.words"), placeholder: t("items.words") });
  const status = choice("status", ["", "active", "held", "removed"]);
  const kind = choice("kind", ["", "normal", "gold", "practice", "check", "repeat"]);
  const rows = el("tbody", {});
  const none = el("p", { class: "soft", hidden: true }, t("items.none"));
  const count = el("span", { class: "soft small", role: "status" });
  const next = el("button", { type: "button", class: "button", hidden: true }, t("items.more"));
  const act = (label, change, kindOf = "") => el("button", { type: "button", class: `button ${kindOf}`, onclick: () => apply(change()) }, label);
  const priority = el("input", { class: "input short", type: "number", value: "0", "aria-label": t("items.priority") });
  const overlap = el("input", { class: "input short", type: "number", min: "1", max: "50", value: "3", "aria-label": t("items.wanted") });
  const bulk = el("div", { class: "sheet row bulk", hidden: true }, count, act(t("items.hold"), () => ({ status: "held" })), act(t("items.free"), () => ({ status: "active" })),
    act(t("items.remove"), () => ({ status: "removed" }), "danger"), priority, act(t("items.set_priority"), () => ({ priority: Number(priority.value) })),
    overlap, act(t("items.set_wanted"), () => ({ overlap: Number(overlap.value) })));
  const all = el("input", { type: "checkbox", "aria-label": t("items.all"), onchange: () => rows.querySelectorAll("input").forEach((box) => box.checked !== all.checked && box.click()) });
  const head_row = ["prompt", "kind", "status", "priority", "judged"].map((name) => el("th", { scope: "col", class: ["priority", "judged"].includes(name) ? "number" : "" }, t(`items.col_${name}`)));
  const form = el("form", { class: "row filters", onsubmit: (event) => (event.preventDefault(), load()) }, el("div", { class: "grow" }, words), status, kind, el("button", { class: "button" }, t("items.look")));
  main.append(head, form, bulk, el("div", { class: "scroll" }, el("table", { class: "data" }, el("thead", {}, el("tr", {}, mayManage && el("th", {}, all), head_row)), rows)), none, el("div", { class: "row" }, next));
  next.addEventListener("click", () => load(next.dataset.cursor));
  for (const select of [status, kind]) select.addEventListener("change", () => load());
  await load();

  async function load(cursor = "") {
    const asked = new URLSearchParams({ cursor, status: status.value, kind: kind.value, q: words.value.trim() });
    const isLast = asking();
    const found = await api("GET", path(slug, `/items?${asked}`));
    if (!isLast()) return;
    if (!cursor) {
      fill(rows);
      chosen.clear();
      mark();
    }
    rows.append(...found.items.map(row));
    none.hidden = rows.childElementCount > 0;
    next.hidden = !found.cursor;
    next.dataset.cursor = found.cursor ?? "";
  }

  function row(one) {
    const box = el("input", { type: "checkbox", "aria-label": t("items.choose"), onchange: ({ target }) => (target.checked ? chosen.add(one.id) : chosen.delete(one.id), mark()) });
    const look = el("a", { href: path(slug, `/review?item=${one.id}`) }, one.prompt || one.id);
    const kinds = { held: "warn", removed: "bad", active: "good" };
    return el("tr", { "data-item": one.id }, mayManage && el("td", {}, box), el("td", { class: "prompt" }, look), el("td", {}, one.kind === "normal" ? "" : el("span", { class: "tag" }, t(`items.kind_${one.kind}`))),
      el("td", {}, el("span", { class: `tag ${kinds[one.status]}` }, t(`items.status_${one.status}`))), el("td", { class: "number" }, number(one.priority)), el("td", { class: "number" }, `${one.n_done} / ${one.n_slots}${one.n_surplus ? ` + ${one.n_surplus}` : ""}`));
  }

  function mark() {
    bulk.hidden = chosen.size === 0;
    count.textContent = t("items.chosen", { n: chosen.size });
    all.checked = chosen.size > 0 && chosen.size === rows.childElementCount;
  }

  async function apply(change) {
    const { changed } = await api("POST", path(slug, "/items:bulk"), { body: { ids: [...chosen].slice(0, 200), ...change } });
    toast(t("items.changed", { n: changed }));
    await load();
  }
});

function choice(name, values) {
  return el("select", { class: "input choice", name, "aria-label": t(`items.col_${name}`) }, values.map((value) => el("option", { value }, value ? t(`items.${name}_${value}`) : t(`items.any_${name}`))));
}
