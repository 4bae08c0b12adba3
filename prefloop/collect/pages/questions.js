// One widget for each type of question. A widget is { element, update, focus }; get() and set(value, { joins }) are its answer.
import { dialog, el, fill, icon, t, words } from "./base.js";
import { drawn } from "./diff.js";

const PENCIL = "m4 20 1-4L16 5l3 3L8 19l-4 1Zm9.5-12.5 3 3";
let count = 0;
const nameOf = (question) => words(question.label, question.id.replaceAll("_", " "));
const needed = (question) => (question.required ? el("span", { class: "needed", title: t("ask.needed") }, "*", el("span", { class: "unseen" }, t("ask.needed"))) : null);
const help = (question) => (words(question.help) ? el("span", { class: "help small soft" }, words(question.help)) : null);
const fieldset = (question, ...content) => el("fieldset", { class: `ask ask-${question.type}`, "data-question": question.id },
  el("legend", { class: "label" }, nameOf(question), needed(question)), help(question), content);


function pills(question, points, { get, set }, label) {
  const name = `q${(count += 1)}`;
  const radios = points.map((point) => {
    const input = el("input", { type: "radio", name, value: String(point), class: "unseen", onclick: () => get() === point && set(undefined), onchange: () => set(point) });
    return { point, input, element: el("label", { class: "pill" }, input, el("span", {}, label(point))) };
  });
  const update = () => radios.forEach(({ point, input }) => (input.checked = get() === point));
  return { radios, update, focus: () => (radios.find(({ input }) => input.checked) ?? radios[0]).input.focus() };
}

function likert(question, answer) {
  const points = Array.from({ length: question.max - question.min + 1 }, (_, step) => question.min + step);
  const meaning = (point) => words(question.anchors?.[point]);
  const { radios, ...made } = pills(question, points, answer, (point) => [String(point), meaning(point) && el("span", { class: "unseen" }, ` ${meaning(point)}`)]);
  const ends = [meaning(question.min), meaning(question.max)];
  const scale = el("div", { class: "scale" }, el("div", { class: "pills" }, radios.map(({ element, point }) => {
    if (meaning(point)) element.title = meaning(point);
    return element;
  })), ends.some(Boolean) && el("div", { class: "ends small soft", "aria-hidden": "true" }, el("span", {}, ends[0]), el("span", {}, ends[1])));
  return { ...made, element: fieldset(question, scale) };
}

function single(question, answer) {
  const labels = new Map(question.options.map((option) => [option.id, words(option.label, option.id.replaceAll("_", " "))]));
  const { radios, ...made } = pills(question, [...labels.keys()], answer, (id) => labels.get(id));
  return { ...made, element: fieldset(question, el("div", { class: "pills wide" }, radios.map(({ element }) => element))) };
}

function multi(question, { get, set }) {
  const boxes = question.options.map((option) => {
    const flip = () => {
      const chosen = new Set(get() ?? []);
      chosen.has(option.id) ? chosen.delete(option.id) : chosen.add(option.id);
      set(question.options.map((one) => one.id).filter((id) => chosen.has(id)));
    };
    const input = el("input", { type: "checkbox", class: "unseen", onchange: flip });
    return { id: option.id, input, element: el("label", { class: "pill" }, input, el("span", {}, words(option.label, option.id.replaceAll("_", " ")))) };
  });
  return {
    element: fieldset(question, el("div", { class: "pills wide" }, boxes.map(({ element }) => element))),
    update: () => boxes.forEach(({ id, input }) => (input.checked = (get() ?? []).includes(id))),
    focus: () => boxes[0].input.focus(),
  };
}

/* A flag is a chip in the row of its stage's flags; asked.js and the keys call it by its letter. */
export function flag(question, { get, set }, key) {
  const element = el("button", { type: "button", class: "flag", "aria-pressed": "false", "data-question": question.id, "data-key": key,
    onclick: () => set(get() ? undefined : true) }, el("kbd", { class: "flag-key", "aria-hidden": "true" }, key), nameOf(question));
  return { element, update: () => element.setAttribute("aria-pressed", String(get() === true)), focus: () => element.focus() };
}

function numeric(question, { get, set }) {
  const input = el("input", { class: "input", type: "number", step: "any", min: question.min, max: question.max, inputmode: "decimal",
    oninput: () => set(input.value === "" ? undefined : Number(input.value), { joins: true }) });
  const range = question.min !== null || question.max !== null ? t("ask.range", { min: question.min ?? "…", max: question.max ?? "…" }) : null;
  const element = el("label", { class: "ask field", "data-question": question.id }, el("span", {}, nameOf(question), needed(question), range && ` · ${range}`), help(question), input);
  const update = () => document.activeElement !== input && (input.value = get() ?? "");
  return { element, update, focus: () => input.focus() };
}

function text(question, { get, set }) {
  const left = el("span", { class: "left small", "aria-live": "polite" });
  const input = el("textarea", { class: "input", rows: "1", placeholder: nameOf(question), "aria-label": nameOf(question),
    oninput: () => (set(input.value || undefined, { joins: true }), grown()) });
  const grown = () => {
    const over = [...input.value].length - question.max;
    left.textContent = over > -100 ? t(over > 0 ? "ask.over" : "ask.left", { n: Math.abs(over) }) : "";
    left.classList.toggle("wrong", over > 0);
  };
  const element = el("div", { class: "ask ask-text field", "data-question": question.id }, el("span", { "aria-hidden": "true" }, nameOf(question), needed(question)), help(question), input, left);
  const update = () => {
    if (input.value !== (get() ?? "")) input.value = get() ?? "";
    grown();
  };
  return { element, update, focus: () => input.focus() };
}

/* The answer as it should read, beside what changed. Every letter typed is in the draft at once. */
function edit(question, { get, set, original, letter }) {
  const shown = el("span", {});
  const open = () => {
    const input = el("textarea", { class: "input", rows: "14", "aria-label": nameOf(question), value: get() ?? original });
    const changes = el("div", { class: "diff raw", "aria-label": t("edit.changes"), role: "region", tabindex: "0" });
    const live = () => fill(changes, drawn(original, input.value));
    input.addEventListener("input", () => {
      set(input.value === original ? undefined : input.value, { joins: true });
      live();
    });
    live();
    const sides = el("div", { class: "sides" }, el("label", { class: "field" }, el("span", {}, nameOf(question)), input), el("div", { class: "field" }, el("span", {}, t("edit.changes")), changes));
    const actions = [{ value: "original", label: t("edit.original"), kind: "quiet" }, { value: "done", label: t("edit.done"), kind: "first" }];
    const check = (value) => {
      if (value !== "original") return true;
      input.value = original;
      set(undefined);
      live();
      return false;
    };
    dialog({ title: t("edit.title", { name: letter.toUpperCase() }), body: sides, isWide: true, actions, check, onOpen: () => input.focus() });
  };
  const button = el("button", { type: "button", class: "button small-button edit", "data-question": question.id, onclick: open }, icon(PENCIL), shown);
  const update = () => {
    shown.textContent = get() === undefined ? nameOf(question) : t("edit.edited");
    button.classList.toggle("is-set", get() !== undefined);
  };
  return { element: button, update, focus: () => button.focus(), open };
}

/* Which of two, how clearly: A … tie … B, and neither. */
function pair(question, { get, set }) {
  const steps = question.strength ? Array.from({ length: question.strength }, (_, step) => step + 1) : [0];
  const between = (strength) => (question.strength < 4 ? t("pair.more") : strength === 2 ? t("pair.somewhat") : question.strength === 4 ? t("pair.more") : `${t("pair.more")} (${strength})`);
  const label = (strength) => (!question.strength ? t("pair.better") : strength === question.strength ? t("pair.much") : strength === 1 ? t("pair.slightly") : between(strength));
  const choice = (id, strength) => ({ id, strength, value: strength ? { choice: id, strength } : { choice: id } });
  const all = [...[...steps].reverse().map((step) => choice("a", step)), ...(question.tie ? [choice("tie", 0)] : []), ...steps.map((step) => choice("b", step))];
  if (question.both_bad) all.push(choice("both_bad", 0));
  const buttons = all.map((one) => {
    const name = one.id.length === 1 ? [el("b", { class: "letter" }, one.id.toUpperCase()), ` ${label(one.strength)}`] : t(`pair.${one.id}`);
    const press = () => set(JSON.stringify(get()) === JSON.stringify(one.value) ? undefined : one.value);
    return { ...one, element: el("button", { type: "button", class: `pill-button ${one.id}`, "aria-pressed": "false", "data-choice": `${one.id}${one.strength || ""}`, onclick: press }, name) };
  });
  const update = () => buttons.forEach(({ id, strength, element }) => element.setAttribute("aria-pressed", String(get()?.choice === id && (get().strength ?? 0) === strength)));
  return { element: fieldset(question, el("div", { class: "pair" }, buttons.map(({ element }) => element))), update, focus: () => buttons[0].element.focus() };
}

const WIDGETS = { likert, single, multi, number: numeric, text, edit, pair };
export const widget = (question, answer) => WIDGETS[question.type](question, answer);
export { nameOf };
