// The keyboard of the page: what each key does to the turn on the screen.
import { announce, t } from "./base.js";
import { leaf, recall, report, saveNow, skip, submit } from "./flow.js";
import * as ranks from "./order.js";
import { goOn } from "./practice.js";
import { nameOf } from "./questions.js";
import { described } from "./strip.js";
import { compare, flipRaw, update } from "./task.js";
import { answerOf, clone, now, order, place, redo, setOrder, undo } from "./turn.js";

let pending = ""; // "flag": the next letter is a flag's

const here = (event) => {
  if (event.target.matches?.("input[type=radio], input[type=range]")) return "";
  return event.target.closest?.(".card")?.dataset.id ?? event.target.dataset?.chip ?? "";
};
const ranking = (work) => (event) => {
  const id = now && !now.isPast && now.strip ? here(event) : "";
  if (!id) return false;
  now.strip.change(work, id);
  return true;
};

function pick(event) {
  const id = now?.strip && !now.isPast ? here(event) : "";
  if (!id) return false;
  now.lifted = now.lifted ? null : { id, before: clone(order()) };
  announce(t(now.lifted ? "said.lifted" : "said.dropped", { name: id.toUpperCase() }) + (now.lifted ? "" : ` ${described(order(), id, now.letters)}`));
  update();
  return true;
}

function escape() {
  if (pending) {
    pending = "";
    place.root.classList.remove("is-flagging");
    return true;
  }
  if (!now?.lifted) return false;
  const { before, id } = now.lifted;
  now.lifted = null;
  setOrder(before, id);
  update();
  return true;
}

const focusCard = (place) => () => {
  const id = now?.letters[place];
  if (!id) return false;
  const { element } = now.cards.get(id);
  element.focus();
  element.scrollIntoView({ block: "nearest", inline: "start" });
  return true;
};

/* Shift and a digit: the first scale of the focused answer that has no value yet, else the one set last. */
const rate = (point) => () => {
  if (!now || now.isPast || !now.at) return false;
  const scales = now.widgets.filter(({ question, letter, element }) => question.type === "likert" && letter === now.at && !element.hidden);
  const of = ({ stage, question }) => answerOf(stage, question, now.at);
  const open = scales.find((one) => of(one).get() === undefined) ?? scales.find(({ question }) => question.id === now.rated) ?? scales.at(-1);
  if (!open || point < open.question.min || point > open.question.max) return false;
  now.rated = open.question.id;
  of(open).set(point);
  announce(`${now.at.toUpperCase()}: ${nameOf(open.question)} ${point}`);
  return true;
};

function flagging() {
  if (!now || now.isPast || !now.at || !now.widgets.some(({ question }) => question.type === "flag")) return false;
  pending = "flag";
  place.root.classList.add("is-flagging");
  announce(t("said.flagging", { name: now.at.toUpperCase() }));
  return true;
}

export function flagged(event) {
  if (!pending || event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || ["Shift", "Alt"].includes(event.key)) return;
  const found = now.widgets.find(({ letter, element, question }) => question.type === "flag" && letter === now.at && !element.hidden && element.dataset.key === event.key.toLowerCase());
  if (event.key === "Escape") return;
  pending = "";
  place.root.classList.remove("is-flagging");
  if (!found) return;
  event.preventDefault();
  event.stopPropagation();
  found.element.click();
  announce(`${nameOf(found.question)}: ${t(found.element.getAttribute("aria-pressed") === "true" ? "yes" : "no")}`);
}

function edit() {
  const found = now && !now.isPast && now.widgets.find(({ question, letter, element }) => question.type === "edit" && letter === now.at && !element.hidden);
  if (!found) return false;
  found.open();
  return true;
}

const choose = (id, isMore) => () => {
  if (!now?.pair || now.isPast) return false;
  const { stage, question } = now.pair;
  if ((id === "tie" && !question.tie) || (id === "both_bad" && !question.both_bad)) return false;
  const answer = answerOf(stage, question, "");
  const before = answer.get();
  const isSide = question.strength && id.length === 1;
  const strength = Math.min(question.strength, before?.choice === id && isMore ? before.strength + 1 : isMore ? 2 : 1);
  answer.set(isSide ? { choice: id, strength } : { choice: id });
  announce(t(id.length === 1 ? "said.chosen" : `pair.${id}`, { name: id.toUpperCase(), strength: isSide ? strength : "" }));
  return true;
};

export const KEYS = [
  ...Array.from({ length: 9 }, (_, place) => ({ keys: String(place + 1), name: "key.focus", shown: "1 … 9", run: focusCard(place) })),
  { keys: "arrowup k", name: "key.better", run: ranking(ranks.better) },
  { keys: "arrowdown j", name: "key.worse", run: ranking(ranks.worse) },
  { keys: "=", name: "key.tie", run: (event) => now?.rank?.question.ties && ranking(ranks.tiedAbove)(event) },
  { keys: "-", name: "key.split", run: ranking(ranks.split) },
  { keys: "x", name: "key.unusable", run: (event) => now?.rank?.question.unusable && ranking(ranks.toggledUnusable)(event) },
  { keys: "backspace", name: "key.back", run: ranking(ranks.toTray) },
  { keys: "space", name: "key.pick", run: pick },
  { keys: "r", name: "key.string", run: () => Boolean(now?.line?.element.checkVisibility()) && (now.line.element.focus(), now.line.element.select(), true) },
  ...Array.from({ length: 9 }, (_, point) => ({ keys: `shift+${point + 1}`, name: "key.rate", shown: "⇧1 … ⇧9", run: rate(point + 1) })),
  { keys: "f", name: "key.flag", run: flagging },
  { keys: "e", name: "key.edit", run: edit },
  { keys: "m", name: "key.raw", run: flipRaw },
  { keys: "d", name: "key.diff", run: () => compare() },
  { keys: "p", name: "key.play", run: () => Boolean(now?.gallery?.play((now.at ?? "").toUpperCase())) },
  { keys: ",", name: "key.wind_back", run: () => Boolean(now?.gallery?.wind(-5)) },
  { keys: ".", name: "key.wind_on", run: () => Boolean(now?.gallery?.wind(5)) },
  { keys: "mod+enter", name: "key.submit", isTyping: true, run: () => void (goOn() || submit()) },
  { keys: "enter", name: "key.next", run: goOn },
  { keys: "mod+s", name: "key.save", isTyping: true, run: () => void saveNow() },
  { keys: "mod+z", name: "key.undo", run: undo },
  { keys: "mod+shift+z mod+y", name: "key.redo", run: redo },
  { keys: "u", name: "key.recall", run: () => void recall() },
  { keys: "s", name: "key.skip", run: () => void skip() },
  { keys: "g", name: "key.report", run: () => void report() },
  { keys: "[", name: "key.earlier", run: () => void leaf(1) },
  { keys: "]", name: "key.later", run: () => void leaf(-1) },
  { keys: "escape", name: "key.escape", isTyping: true, run: escape },
];
export const PAIR_KEYS = [
  { keys: "arrowleft", name: "key.a", run: choose("a", false) }, { keys: "arrowright", name: "key.b", run: choose("b", false) },
  { keys: "shift+arrowleft", name: "key.a_more", run: choose("a", true) }, { keys: "shift+arrowright", name: "key.b_more", run: choose("b", true) },
  { keys: "arrowdown", name: "key.tie_pair", run: choose("tie", false) }, { keys: "0", name: "key.both_bad", run: choose("both_bad", false) },
];
