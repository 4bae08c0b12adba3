// A turn drawn: the prompt, a card for each answer, the dock; and kept true to the answers.
import { announce, dialog, el, fill, icon, keys, menu, nth, preferences, showHtml, t, toast, words } from "./base.js";
import { given, holds, missing } from "./asked.js";
import { drawn } from "./diff.js";
import { backToWork, history, recall, report, saveNow, skip, submit } from "./flow.js";
import { gallery } from "./media.js";
import * as ranks from "./order.js";
import { told } from "./practice.js";
import { flag, nameOf, widget } from "./questions.js";
import { described, tierStrip } from "./strip.js";
import { answerOf, now, order, place, setOrder, textOf, undo } from "./turn.js";

const FLAG_KEYS = "abcdefghijklmnopqrstuvwxyz";
const UP = "m6 14 6-6 6 6";
const DOWN = "m6 10 6 6 6-6";
const MORE = "M5 12h.01M12 12h.01M19 12h.01";

function showText(element, text) {
  const html = now.html.get(text);
  if (now.isRaw || html === undefined) {
    element.className = "raw";
    element.textContent = text;
  } else {
    element.className = "md";
    showHtml(element, html);
  }
  return element;
}

export function draw() {
  const { schema, screen } = now;
  now.bodies = [];
  now.gallery = gallery();
  now.cards = new Map();
  const rank = now.rank?.question;
  now.strip = rank ? tierStrip({ letters: now.letters, question: rank, get: order, set: (next_, id) => now.isPast || setOrder(next_, id) }) : null;
  const cards = el("section", { class: `cards ${layout()}`, "aria-label": t("work.answers"), "data-k": now.letters.length }, screen.completions.map(card));
  const asked = itemQuestions();
  const whole = el("div", { class: `work ${now.isPast ? "is-past" : ""}` }, el("aside", { class: "prompt" }, guidelines(), prompt()),
    el("div", { class: "judge" }, now.isPast || screen.state === "recalled" ? banner() : null, now.isPast && screen.feedback && el("section", { class: "sheet stack told", "aria-labelledby": "practice-title" }, told(screen.feedback)), now.gallery.transport, cards, dots(cards), asked.panel), dock(asked.inDock));
  fill(place.root, el("h1", { class: "unseen" }, place.title), whole);
}

function layout() {
  const longest = Math.max(...now.letters.map((letter) => textOf(letter).length));
  if (now.letters.length < 3 || longest > 1400) return now.letters.length === 2 ? "two" : "one";
  const isMedia = now.schema.medium !== "text" && now.letters.length !== 4; // four stand two by two
  return longest < 350 ? `three ${isMedia ? "files" : ""}` : "two";
}

function guidelines() {
  const text = words(now.schema.guidelines);
  if (!text) return null;
  const name = `seen.${place.project}`;
  const isNew = preferences.get(name, 0) !== now.screen.schema_version;
  const made = el("details", { class: "guidelines", open: isNew, ontoggle: () => made.open || preferences.get(name, 0) === now?.screen.schema_version || preferences.set(name, now.screen.schema_version) },
    el("summary", {}, t("work.guidelines")), showHtml(el("div", { class: "md small" }), now.html.get(text) ?? ""));
  if (now.html.get(text) === undefined) made.lastChild.textContent = text;
  return made;
}

function prompt() {
  const messages = now.screen.prompt.messages.map(({ role, content }) => {
    const shown = el("div", { dir: "auto" });
    now.bodies.push([shown, content]);
    return el("div", { class: `message ${role}` }, el("span", { class: "label" }, t(`said_by.${role}`)), showText(shown, content));
  });
  return el("section", { class: "conversation", "aria-label": t("work.prompt") }, messages);
}

function card({ id, content }) {
  const shown = el("div", { dir: "auto" });
  const name = id.toUpperCase();
  if (content.type === "text") now.bodies.push([shown, content.text]);
  const choices = now.strip?.choices(id);
  const badge = el("button", { type: "button", class: "letter grip", "aria-label": t("work.grip", { name }), title: now.strip ? t("work.grip_hint") : name, tabindex: "-1" }, name);
  const chip = el("button", { type: "button", class: "rank-chip", onclick: choices });
  const move = (key, path, work) => el("button", { type: "button", class: "button quiet icon move", title: t(`move.${key}`), "aria-label": `${t(`move.${key}`)}: ${name}`, onclick: () => work(id) }, path);
  const moves = now.strip && el("span", { class: "moves" }, move("better", icon(UP), (one) => now.strip.change(ranks.better, one)), move("worse", icon(DOWN), (one) => now.strip.change(ranks.worse, one)),
    now.rank.question.ties && move("tie", "=", (one) => now.strip.change(ranks.tiedAbove, one)), now.rank.question.unusable && move("unusable", "✗", (one) => now.strip.change(ranks.toggledUnusable, one)));
  const more = el("button", { type: "button", class: "button quiet icon", "aria-haspopup": "menu", "aria-label": t("work.more", { name }), onclick: ({ currentTarget }) => menu(currentTarget, [
    { label: t(now.isRaw ? "work.show_rendered" : "work.show_raw"), hint: "M", run: flipRaw },
    now.letters.length > 1 && { label: t("work.diff"), hint: "D", run: () => compare(id) },
    { label: t("work.copy"), run: () => navigator.clipboard?.writeText(content.text ?? "").then(() => toast(t("work.copied"), { stays: 1500 })) },
  ]) }, icon(MORE));
  const head = el("header", {}, badge, now.strip && chip, el("span", { class: "grow" }), moves, content.type === "text" && more);
  const isText = content.type === "text";
  const text = el("div", { class: `answer ${isText ? "" : "is-open"}` }, isText ? showText(shown, content.text) : now.gallery.show(content, name));
  const made = el("article", { class: "card", tabindex: "0", "data-id": id, "data-drop": now.strip ? "card" : null }, head, text, el("fieldset", { class: "asked bare", disabled: now.isPast }, cardQuestions(id)));
  made.addEventListener("focusin", () => focused(id));
  now.strip?.makeDraggable(badge, id, () => (ranks.isPlaced(order(), id) ? made.focus() : now.strip.change(ranks.last, id)));
  now.cards.set(id, { element: made, chip });
  requestAnimationFrame(() => expandable(text));
  return made;
}

function expandable(text) {
  if (text.scrollHeight <= text.clientHeight + 8) return;
  text.classList.add("is-cut");
  const button = el("button", { type: "button", class: "button quiet small-button expand", "aria-expanded": "false", onclick: () => {
    const isOpen = text.classList.toggle("is-open");
    button.setAttribute("aria-expanded", String(isOpen));
    button.textContent = t(isOpen ? "work.fold" : "work.unfold");
  } }, t("work.unfold"));
  text.after(button);
}

function focused(id) {
  if (now.at !== id) [now.before, now.at] = [now.at, id];
}

/* The questions about one answer: scales first, flags as a row of chips, then the rest as it was written. */
function cardQuestions(letter) {
  return now.schema.stages.filter((stage) => stage.per === "completion").map((stage) => {
    const flags = stage.questions.filter(({ type }) => type === "flag");
    const shown = stage.questions.map((question) => {
      const answer = answerOf(stage, question, letter);
      const made = question.type === "flag" ? flag(question, answer, FLAG_KEYS[flags.indexOf(question)] ?? "") : widget(question, answer);
      now.widgets.push({ stage, question, letter, ...made });
      return { question, element: made.element };
    });
    const of = (test) => shown.filter(({ question }) => test(question.type)).map(({ element }) => element);
    return el("div", { class: "stage", ...(words(stage.title) ? { role: "group", "aria-label": words(stage.title) } : {}) }, of((type) => type !== "flag" && type !== "edit" && type !== "text"),
      flags.length > 0 && el("div", { class: "flags", role: "group", "aria-label": t("ask.flags") }, of((type) => type === "flag")), of((type) => type === "text"), of((type) => type === "edit"));
  });
}

/* The questions about the item: one text goes into the dock, as the reason; everything else stands below the answers. */
function itemQuestions() {
  const all = now.schema.stages.filter((stage) => stage.per === "item").flatMap((stage) => stage.questions.filter(({ type }) => type !== "rank").map((question) => ({ stage, question })));
  const made = all.map(({ stage, question }) => {
    const answer = answerOf(stage, question, "");
    const one = { stage, question, letter: "", ...(question.type === "flag" ? flag(question, answer, "") : widget(question, answer)) };
    now.widgets.push(one);
    return one;
  });
  const inDock = made.filter(({ question }) => question.type === "text" || question.type === "pair");
  const rest = made.filter((one) => !inDock.includes(one) || inDock.indexOf(one) > 1);
  return { inDock: inDock.slice(0, 2), panel: rest.length ? el("fieldset", { class: "sheet stack item bare", disabled: now.isPast }, rest.map(({ element }) => element)) : null };
}

function dots(cards) {
  const made = el("div", { class: "dots", "aria-hidden": "true" }, now.letters.map((id) => el("button", { type: "button", tabindex: "-1", class: "dot", onclick: () => now.cards.get(id).element.scrollIntoView({ inline: "start", block: "nearest" }) }, id.toUpperCase())));
  const mark = () => {
    const at = Math.round(cards.scrollLeft / Math.max(1, cards.clientWidth * 0.9));
    [...made.children].forEach((dot, place) => dot.classList.toggle("is-here", place === at));
  };
  cards.addEventListener("scroll", mark, { passive: true });
  mark();
  return made;
}

function banner() {
  const { screen } = now;
  const back = el("button", { type: "button", class: "button", onclick: backToWork }, t("work.back"));
  if (!now.isPast) return el("div", { class: "note row" }, el("span", { class: "grow" }, screen.returned ? t("work.returned", { comment: screen.returned }) : t("work.recalled")));
  const again = screen.state === "submitted" && el("button", { type: "button", class: "button first", onclick: () => recall(screen.assignment) }, t("work.recall_change"));
  return el("div", { class: "note row" }, el("span", { class: "grow" }, t("work.past", { state: t(`turn.${screen.state}`) })), again, back);
}

function dock(inDock) {
  const line = now.rank && el("input", { class: "input line", type: "text", autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder: "2 1=3 x4", "aria-label": t("string.label"), title: t("string.hint"), "aria-describedby": "string-problem" });
  const problem = el("span", { id: "string-problem", class: "wrong line-problem", role: "alert" });
  const isShown = () => now?.line?.element === line; // a field that is taken away is left, too: its words are of the turn before
  const apply = () => {
    if (!isShown()) return "";
    if (line.value.trim() === ranks.written(order())) return (problem.textContent = "");
    const found = line.value.trim() ? ranks.parse(line.value, now.letters) : ranks.nothing();
    const tie = found.tiers && !now.rank.question.ties && found.tiers.some((tier) => tier.length > 1) && "no_ties";
    const bin = found.tiers && !now.rank.question.unusable && found.unusable.length && "no_bin";
    const wrong = found.problem ?? (tie || bin);
    problem.textContent = wrong ? t(`string.${wrong}`, { about: (found.about ?? "").toUpperCase() }) : "";
    line.setAttribute("aria-invalid", String(Boolean(wrong)));
    if (wrong) return "";
    const { stage, question } = now.rank;
    answerOf(stage, question, "").set(found.tiers.length || found.unusable.length ? found : undefined);
    announce(t("said.order", { order: ranks.written(found) || "—" }));
    return "";
  };
  line?.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      apply();
      if (line.getAttribute("aria-invalid") !== "true") (now.cards.get(now.at || now.letters[0]).element).focus();
    }
    if (event.key === "Escape") {
      problem.textContent = "";
      line.setAttribute("aria-invalid", "false");
      now.line.reset();
      now.cards.get(now.at || now.letters[0]).element.focus();
    }
  });
  line?.addEventListener("change", apply);
  line?.addEventListener("blur", () => isShown() && line.getAttribute("aria-invalid") !== "true" && now.line.reset());
  now.line = line && { element: line, apply, reset: () => ((line.value = ranks.written(order())), problem.textContent && document.activeElement === line || (problem.textContent = "", line.setAttribute("aria-invalid", "false"))) };
  now.submit = el("button", { type: "button", class: "button first submit", "aria-describedby": "why-not", onclick: submit }, t("work.submit"), el("kbd", { class: "wide-only" }, keys.shown("mod+enter")));
  now.why = el("button", { type: "button", id: "why-not", class: "why-not", onclick: () => pointTo(lacking()[0]) });
  const small = (key, run, hint) => el("button", { type: "button", class: "button quiet", onclick: run, title: hint }, t(key));
  const text = inDock.filter(({ question }) => question.type === "text").map(({ element }) => element);
  const choice = inDock.filter(({ question }) => question.type === "pair").map(({ element }) => element);
  const more = el("button", { type: "button", class: "button quiet icon phone-only", "aria-haspopup": "menu", "aria-label": t("work.actions"), onclick: ({ currentTarget }) => menu(currentTarget, [
    { label: t("work.skip"), run: skip }, { label: t("work.report"), run: report }, { label: t("work.save"), run: saveNow }, { label: t("work.undo"), run: undo }, { label: t("work.history"), run: history }]) }, icon(MORE));
  const actions = el("div", { class: "actions" }, now.why, el("span", { class: "row quiet-actions wide-only" }, small("work.skip", skip, keys.shown("s")), small("work.report", report, keys.shown("g")), small("work.save", saveNow, keys.shown("mod+s"))), more, now.submit);
  return el("fieldset", { class: "dock bare", "aria-label": t("work.dock"), disabled: now.isPast }, now.strip && el("div", { class: "order" }, now.strip.element, el("div", { class: "line-box" }, line, problem)),
    choice, el("div", { class: "last" }, text.length ? el("div", { class: "reason" }, text) : el("span", { class: "grow" }), actions));
}

// --- keeping the screen true -------------------------------------------------------------------------------------------------------

export const lacking = () => missing(now.schema, now.answers, now.letters, now.tags);

export function update() {
  for (const { stage, question, letter, element, update: one } of now.widgets) {
    element.hidden = !holds(question.show_if, given(now.answers, stage, letter), now.tags);
    one();
  }
  if (now.strip) {
    now.strip.update();
    if (document.activeElement !== now.line.element) now.line.reset();
    for (const [id, { element, chip }] of now.cards) {
      const at = ranks.tierOf(order(), id);
      const isOut = order().unusable.includes(id);
      const tied = at >= 0 && order().tiers[at].length > 1;
      chip.textContent = isOut ? t("chip.unusable") : at < 0 ? t("chip.place", { nth: nth(order().tiers.length + 1) }) : t(tied ? "chip.tied" : "chip.placed", { nth: nth(at + 1) });
      chip.classList.toggle("is-set", at >= 0 || isOut);
      chip.classList.toggle("is-out", isOut);
      element.classList.toggle("is-out", isOut);
      element.classList.toggle("is-lifted", now.lifted?.id === id);
      element.setAttribute("aria-label", described(order(), id, now.letters));
    }
  } else for (const [id, { element }] of now.cards) element.setAttribute("aria-label", t("said.answer", { name: id.toUpperCase() }));
  const left = now.isPast ? [] : lacking();
  now.submit.setAttribute("aria-disabled", String(left.length > 0));
  now.why.textContent = left.length ? reasonOf(left[0]) + (left.length > 1 ? ` ${t("missing.more", { n: left.length - 1 })}` : "") : "";
  now.why.hidden = !left.length;
}

function reasonOf({ reason, letter, question, n }) {
  const values = { n, name: letter.toUpperCase(), question: nameOf(question) };
  return t(`missing.${reason}${letter ? "_of" : ""}`, values);
}

/* To where something is missing. */
export function pointTo(one) {
  if (!one) return;
  announce(reasonOf(one));
  if (one.question.type === "rank") {
    const id = ranks.unplaced(order(), now.letters)[0] ?? now.letters[0];
    now.cards.get(id).element.focus();
    now.cards.get(id).element.scrollIntoView({ block: "nearest", inline: "start" });
    return;
  }
  const found = now.widgets.find(({ stage, question, letter }) => stage.id === one.stage.id && question.id === one.question.id && letter === one.letter);
  found.focus();
  found.element.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export function flipRaw() {
  if (!now) return;
  now.isRaw = !now.isRaw;
  now.bodies.forEach(([element, text]) => showText(element, text));
  announce(t(now.isRaw ? "work.show_raw" : "work.show_rendered"));
}

/* Word by word: how the focused answer differs from the one looked at before it. */
export function compare(id = now?.at) {
  if (!now || now.letters.length < 2) return false;
  const one = id || now.letters[0];
  const other = now.before && now.before !== one ? now.before : now.letters.find((letter) => letter !== one);
  const content = el("div", { class: "diff raw", tabindex: "0" }, drawn(textOf(other), textOf(one)));
  dialog({ title: t("work.diff_of", { one: other.toUpperCase(), other: one.toUpperCase() }), body: content, isWide: true, actions: [{ value: "close", label: t("close"), kind: "first" }] });
  return true;
}
