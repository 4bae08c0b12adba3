// The tier strip: a tray of what has no place yet, tiers from best to worst, a bin. Chips are dragged, tapped, or moved by keys.
import { el, fill, menu, t } from "./base.js";
import { draggable } from "./drag.js";
import * as ranks from "./order.js";

const TARGETS = "[data-drop]";

/* get() is the order, set(order, id) changes it; question says whether ties and the bin are allowed. */
export function tierStrip({ letters, question, get, set }) {
  const root = el("div", { class: "strip", role: "group", "aria-label": t("strip.label") });
  const change = (work, id) => set(work(get(), id), id);

  const over = (target, event) => {
    document.querySelectorAll(".is-over").forEach((one) => one.classList.remove("is-over", "is-before", "is-after"));
    document.body.classList.toggle("is-dragging", Boolean(event));
    if (!target) return;
    target.classList.add("is-over");
    if (target.dataset.drop === "card") target.classList.toggle("is-before", zone(target, event) < 0);
    if (target.dataset.drop === "card") target.classList.toggle("is-after", zone(target, event) > 0);
  };

  const drop = (id) => (target, event) => {
    const order = get();
    const [kind, place] = target.dataset.drop.split(":");
    if (kind === "tray") return change(ranks.toTray, id);
    if (kind === "bin") return change(ranks.unusable, id);
    if (kind === "gap") return set(ranks.insertedAt(order, id, Number(place)), id);
    if (kind === "tier") return set((question.ties ? ranks.tiedAt : ranks.insertedAt)(order, id, Number(place)), id);
    return onCard(id, target.dataset.id, zone(target, event));
  };

  /* On another card: its upper part is "better than this", its lower part "worse", between them "as good as". */
  const onCard = (id, other, where) => {
    if (id === other) return undefined;
    const order = ranks.isPlaced(get(), other) && !get().unusable.includes(other) ? get() : ranks.last(get(), other);
    const place = ranks.tierOf(order, other);
    if (where === 0 && question.ties) return set(ranks.tiedAt(order, id, place), id);
    return set(ranks.insertedAt(order, id, where < 0 ? place : place + 1), id);
  };
  const zone = (target, event) => {
    const box = target.getBoundingClientRect();
    const part = (event.clientY - box.top) / box.height;
    return question.ties ? (part < 0.35 ? -1 : part > 0.65 ? 1 : 0) : part < 0.5 ? -1 : 1;
  };

  const choices = (id) => (event) => {
    const order = get();
    if (!ranks.isPlaced(order, id)) return change(ranks.last, id);
    const [place, isOut] = [ranks.tierOf(order, id), order.unusable.includes(id)];
    const isTied = place >= 0 && order.tiers[place].length > 1;
    return menu(event.currentTarget, [
      (place > 0 || isTied || isOut) && { label: t("move.better"), hint: "↑", run: () => change(ranks.better, id) },
      !isOut && (isTied || place < order.tiers.length - 1) && { label: t("move.worse"), hint: "↓", run: () => change(ranks.worse, id) },
      question.ties && place > 0 && { label: t("move.tie"), hint: "=", run: () => change(ranks.tiedAbove, id) },
      isTied && { label: t("move.split"), hint: "−", run: () => change(ranks.split, id) },
      question.unusable && { label: t(isOut ? "move.usable" : "move.unusable"), hint: "X", run: () => change(ranks.toggledUnusable, id) },
      { label: t("move.back"), hint: "⌫", run: () => change(ranks.toTray, id) },
    ]);
  };

  const together = (id) => (other) => {
    if (!question.ties) return;
    const order = ranks.isPlaced(get(), other) ? get() : ranks.last(get(), other);
    set(ranks.tierOf(order, other) >= 0 ? ranks.tiedAt(order, id, ranks.tierOf(order, other)) : order, id);
  };

  const chipGhost = (id) => () => el("div", { class: "ghost" }, el("span", { class: "letter" }, id.toUpperCase()));
  const makeDraggable = (handle, id, tap) => draggable(handle, { id, ghost: chipGhost(id), targets: TARGETS, over, drop: drop(id), tap,
    hold: question.unusable && (() => change(ranks.toggledUnusable, id)), together: together(id) });

  const chip = (id) => {
    const made = el("button", { type: "button", class: "chip letter", "data-chip": id, "aria-label": described(get(), id, letters) }, id.toUpperCase());
    makeDraggable(made, id, choices(id));
    return made;
  };
  const group = (kind, label, title, ids, extra = "") => el("div", { class: `group ${extra}`, "data-drop": kind, role: "group", "aria-label": title },
    el("span", { class: "number", "aria-hidden": "true" }, label), el("span", { class: "chips" }, ids.map(chip)));
  const gap = (place) => el("div", { class: "gap", "data-drop": `gap:${place}`, "aria-hidden": "true" }, el("i"), el("b", {}, "›"));

  const update = () => {
    const focused = document.activeElement?.dataset?.chip;
    const order = get();
    const left = ranks.unplaced(order, letters);
    fill(root,
      left.length > 0 && group("tray", t("strip.tray"), t("strip.tray_long"), left, "tray"),
      el("div", { class: "tiers" }, order.tiers.map((tier, place) => [gap(place), group(`tier:${place}`, String(place + 1), t("strip.place", { place: place + 1 }), tier, "tier")]),
        gap(order.tiers.length),
        !order.tiers.length && el("div", { class: "hint", "data-drop": "gap:0" }, el("span", { class: "wide-only" }, t("strip.hint")), el("span", { class: "phone-only" }, t("strip.tap")))),
      question.unusable && group("bin", "✗", t("strip.bin"), order.unusable, "bin"));
    if (focused) root.querySelector(`[data-chip="${focused}"]`)?.focus();
  };
  return { element: root, update, makeDraggable, choices, change };
}

/* Where an answer stands, in words: for labels, and for whoever cannot see the strip. */
export function described(order, id, letters) {
  const name = id.toUpperCase();
  if (order.unusable.includes(id)) return t("said.unusable", { name });
  const place = ranks.tierOf(order, id);
  if (place < 0) return t("said.unplaced", { name });
  const others = order.tiers[place].filter((one) => one !== id).map((one) => one.toUpperCase());
  const values = { name, place: place + 1, of: order.tiers.length, others: others.join(", "), left: ranks.unplaced(order, letters).length };
  return t(others.length ? "said.tied" : "said.placed", values);
}
