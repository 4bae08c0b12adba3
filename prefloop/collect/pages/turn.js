// The turn on the screen, and everything that changes it: an answer, an undo, a draft from elsewhere.
import { announce, dialog, el, rendered, t, words } from "./base.js";
import { given } from "./asked.js";
import * as ranks from "./order.js";
import { forgetDraft, keeper, keptDraft } from "./outbox.js";
import { lease, state } from "./status.js";
import { described } from "./strip.js";
import { draw, update } from "./task.js";

const MOST_UNDO = 200;
export const place = { project: "", title: "", root: null }; // where the page is
export let now = null; // screen, schema, answers, …: see show()

export function clear() {
  now?.keeper.stop();
  now = null;
}

/* What saves a turn's draft. */
export const saving = (assignment, rev) => keeper({ assignment, rev, onState: state, onConflict: conflict, onLease: lease });

export const clone = (value) => structuredClone(value);
const rankOf = (schema) => schema.stages.flatMap((stage) => stage.questions.map((question) => ({ stage, question }))).find(({ question }) => question.type === "rank");
const pairOf = (schema) => schema.stages.flatMap((stage) => stage.questions.map((question) => ({ stage, question }))).find(({ question }) => question.type === "pair");

export function order() {
  const asked = now.rank;
  return (asked && now.answers[asked.stage.id]?.[asked.question.id]) ?? ranks.nothing();
}

/* Everything that is answered goes through here: it can be undone, and it is saved. */
export function change(work, { joins = "" } = {}) {
  if (!now || now.isPast) return;
  const before = clone(now.answers);
  work(now.answers);
  if (JSON.stringify(before) === JSON.stringify(now.answers)) return;
  if (!joins || joins !== now.joins) now.undo.push(before);
  if (now.undo.length > MOST_UNDO) now.undo.shift();
  now.redo.length = 0;
  now.joins = joins;
  changed();
}

function changed() {
  now.keeper.keep(body());
  update();
}

export const body = () => ({ answers: now.answers, active_ms: Math.round(now.active) });

function stepBack(from, to) {
  if (!now || now.isPast || !from.length) return;
  to.push(clone(now.answers));
  now.answers = from.pop();
  now.joins = "";
  changed();
  announce(t("said.undone"));
}

export function answerOf(stage, question, letter) {
  const place = letter ? `${stage.id}.${letter}.${question.id}` : `${stage.id}.${question.id}`;
  return {
    letter,
    original: letter ? textOf(letter) : "",
    get: () => given(now.answers, stage, letter)[question.id],
    set: (value, { joins = false } = {}) => change((answers) => {
      answers[stage.id] ??= {};
      const at = letter ? (answers[stage.id][letter] ??= {}) : answers[stage.id];
      if (value === undefined) delete at[question.id];
      else at[question.id] = value;
    }, { joins: joins ? place : "" }),
  };
}

export const textOf = (letter) => now.screen.completions.find(({ id }) => id === letter).content.text ?? "";

export function setOrder(next, id) {
  const { stage, question } = now.rank;
  answerOf(stage, question, "").set(next.tiers.length || next.unusable.length ? next : undefined);
  announce(described(order(), id, now.letters));
}

/* A turn onto the screen, with what was typed before: here, or on the server, or submitted. */
export async function show(screen, { isPast = false } = {}) {
  now?.keeper.stop();
  const texts = [...screen.prompt.messages.map(({ content }) => content), ...screen.completions.map(({ content }) => content.text ?? ""), words(screen.schema.guidelines)];
  const html = await rendered(texts).catch(() => []);
  const there = screen.draft;
  const kept = isPast ? null : keptDraft(screen.assignment);
  const isOurs = kept?.isUnsent && kept.rev >= (there?.rev ?? 0);
  const start = (isOurs ? kept.body : there?.body) ?? { answers: screen.answers ?? {}, active_ms: 0 };
  const schema = screen.schema;
  now = {
    screen, schema, isPast, html: new Map(texts.map((text, place) => [text, html[place]])),
    letters: screen.completions.map(({ id }) => id), tags: screen.prompt.tags, rank: rankOf(schema), pair: pairOf(schema),
    answers: clone(isPast ? screen.answers ?? start.answers : start.answers ?? {}), active: start.active_ms ?? 0,
    undo: [], redo: [], joins: "", widgets: [], flags: new Map(), at: "", before: "", lifted: null,
  };
  now.keeper = saving(screen.assignment, there?.rev ?? 0);
  now.isRaw = schema.render === "raw";
  draw();
  update();
  state(isOurs ? "device" : there ? "saved" : "new");
  if (isOurs) now.keeper.keep(kept.body);
  else if (kept?.isUnsent) conflict({ rev: there.rev, body: there.body, mine: kept.body });
  place.root.querySelector(".cards")?.scrollTo({ left: 0, top: 0 });
  scrollTo({ top: 0 });
  place.root.focus({ preventScroll: true });
}

/* The draft was saved by another tab or device: nobody's words are thrown away without being asked. */
export async function conflict({ rev, body: theirs, mine = body() }) {
  if (JSON.stringify(theirs.answers) === JSON.stringify(mine.answers)) return now.keeper.continueFrom(rev);
  const actions = [{ value: "theirs", label: t("conflict.theirs") }, { value: "mine", label: t("conflict.mine"), kind: "first" }];
  const shown = now;
  const chosen = await dialog({ title: t("conflict.title"), body: el("p", {}, t("conflict.why")), actions });
  if (now !== shown) return undefined;
  now.keeper.continueFrom(rev);
  if (chosen !== "theirs") {
    now.answers = mine.answers;
    return changed();
  }
  now.undo.push(clone(mine.answers)); // taking it back is still possible
  now.answers = clone(theirs.answers);
  forgetDraft(now.screen.assignment);
  state("saved");
  return update();
}

export const undo = () => stepBack(now?.undo ?? [], now?.redo);
export const redo = () => stepBack(now?.redo ?? [], now?.undo);
