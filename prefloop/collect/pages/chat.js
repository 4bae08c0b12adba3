// A live chat: somebody writes, several answers come at once from models unseen, one of them is gone on with.
import { announce, api, ask, date, el, fill, icon, isComposing, keys, page, rendered, showHtml, t, toast, words } from "./base.js";
import { given, holds, missing, submission } from "./asked.js";
import * as ranks from "./order.js";
import { flag, nameOf, widget } from "./questions.js";
import { described, tierStrip } from "./strip.js";
import { agreed } from "./consent.js";

const POLL = 600;
const SEND = "M5 12h14m-6-6 6 6-6 6";
let project = "";
let root = null;
let talk = null; // the chat as the server has it
let now = null; // what is being compared
let polling = 0;

// --- what is kept on this device: words not sent yet, answers not submitted yet -----------------------------------------------------

const spot = () => `prefloop.chat.${talk.chat}.${talk.turns.length}.${last()?.state ?? "new"}`;
const kept = (fallback) => JSON.parse(localStorage.getItem(spot()) ?? "null") ?? fallback;
const keep = (value) => localStorage.setItem(spot(), JSON.stringify(value));
const forget = () => localStorage.removeItem(spot());

// --- asking the server ------------------------------------------------------------------------------------------------------------

const last = () => talk?.turns.at(-1);
const url = (path = "") => `/chats/${talk.chat}${path}`;

async function begin(isRedTeam) {
  let begun = null;
  try {
    begun = await api("POST", `/projects/${encodeURIComponent(project)}/chats`, { body: { red_team: isRedTeam } });
  } catch (problem) {
    if (problem.code !== "consent_needed") throw problem;
    return (await agreed(project, problem)) && begin(isRedTeam);
  }
  location.hash = begun.chat;
  return show(begun);
}

async function open(identity) {
  await show(await api("GET", `/chats/${identity}`));
}

let isBusy = false;
async function changing(work) {
  if (isBusy) return;
  isBusy = true;
  root.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (problem) {
    toast(problem.message, { kind: "bad" });
  } finally {
    isBusy = false;
    root.removeAttribute("aria-busy");
  }
}

const say = (text) => changing(async () => {
  const said = await api("POST", url("/turns"), { body: { text } });
  forget();
  await show(said);
});

const again = () => changing(async () => show(await api("POST", url("/regenerate"))));

const close = () => changing(async () => {
  if (!(await ask(t("chat.end_title"), t("chat.end_why"), t("chat.end")))) return;
  await api("POST", url("/close"));
  await open(talk.chat);
});

const submit = () => changing(async () => {
  const first = lacking()[0];
  if (first) return void pointTo(first);
  now.key ??= `${talk.chat}:${talk.turns.length}:${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
  now.save();
  const body = { answers: submission(talk.schema, now.answers), go_on_with: now.goOn, active_ms: Math.round(performance.now() - now.since), input: "" };
  const seen = await api("POST", url("/choose"), { body, headers: { "Idempotency-Key": now.key } });
  forget();
  announce(t("work.submitted"));
  await show(seen);
});

/* The replies are there all at once: until then one asks. */
function wait() {
  clearTimeout(polling);
  const shown = talk.chat;
  polling = setTimeout(async () => {
    if (talk?.chat !== shown) return;
    const seen = await api("GET", url()).catch(() => null);
    if (talk?.chat !== shown) return;
    if (!seen || seen.turns.at(-1).state === "generating") return wait();
    announce(t(seen.turns.at(-1).state === "failed" ? "chat.failed" : "chat.ready", { n: seen.turns.at(-1).completions.length }));
    await show(seen);
  }, POLL);
}

// --- drawing ------------------------------------------------------------------------------------------------------------------------

async function show(seen) {
  talk = seen;
  now = null;
  const replies = (turn) => turn.completions.map(({ content }) => content.text);
  const texts = [...talk.turns.flatMap((turn) => [turn.user, ...replies(turn)]), words(talk.schema.guidelines)];
  const html = new Map();
  const safe = await rendered(texts).catch(() => []);
  texts.forEach((text, at) => html.set(text, safe[at]));
  const isRaw = talk.schema.render === "raw";
  const drawn = (text) => (isRaw || html.get(text) === undefined ? el("div", { class: "raw", dir: "auto" }, text) : showHtml(el("div", { class: "md", dir: "auto" }), html.get(text)));
  const compares = last()?.state === "compare";
  if (compares) compare(drawn);
  else fill(root, el("div", { class: "talk" }, guidelines(drawn), transcript(drawn), below()));
  if (last()?.state === "generating") wait();
  root.querySelector(".prompt")?.scrollTo(0, 1e6);
  if (compares) scrollTo({ top: 0 });
  else scrollTo({ top: document.body.scrollHeight });
  root.querySelector(".composer textarea")?.focus({ preventScroll: true });
}

function guidelines(drawn) {
  const text = words(talk.schema.guidelines);
  const red = talk.red_team && el("p", { class: "note bad" }, el("span", { class: "red" }, t("chat.red_team")), " ", t("chat.red_why"));
  return [text && el("details", { class: "guidelines", open: !talk.turns.length }, el("summary", {}, t("work.guidelines")), drawn(text)), red];
}

function transcript(drawn) {
  const message = (role, text) => el("div", { class: `message ${role}` }, el("span", { class: "label" }, t(role === "user" ? "chat.you" : "said_by.assistant")), drawn(text));
  const said = talk.turns.flatMap((turn) => {
    const chosen = turn.completions.find(({ id }) => id === turn.chosen);
    return [message("user", turn.user), chosen && message("assistant", chosen.content.text)];
  });
  return el("section", { class: "conversation", "aria-label": t("chat.conversation"), role: "log" }, said);
}

/* Below the conversation: waiting, asking again, or writing. */
function below() {
  const state = last()?.state;
  if (state === "generating") return el("p", { class: "waiting", role: "status" }, el("i"), t("chat.waiting", { n: last().k }));
  if (state === "failed") {
    return el("div", { class: "note warn row", role: "alert" }, el("span", { class: "grow" }, t("chat.failed")),
      el("button", { type: "button", class: "button first", onclick: again }, t("chat.again")));
  }
  const others = el("button", { type: "button", class: "button quiet", onclick: list }, t("chat.others"));
  if (talk.state === "closed") return el("div", { class: "row" }, el("p", { class: "soft grow" }, t("chat.ended")), others);
  const input = el("textarea", { class: "input", rows: "3", maxlength: "20000", placeholder: t(talk.turns.length ? "chat.next" : "chat.first"), "aria-label": t("chat.write"), value: kept(""),
    oninput: () => (keep(input.value), update()) });
  const send = el("button", { type: "button", class: "button first", onclick: () => input.value.trim() && say(input.value) }, t("chat.send"), icon(SEND));
  const update = () => (send.disabled = !input.value.trim());
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
    event.preventDefault();
    send.click();
  });
  update();
  return el("div", { class: "composer" }, input, el("div", { class: "row" }, el("span", { class: "soft small grow" }, t("chat.hint")), others,
    talk.turns.length > 0 && el("button", { type: "button", class: "button quiet", onclick: close }, t("chat.end")), send));
}

/* The replies side by side, and what is asked about them. */
function compare(drawn) {
  const { completions } = last();
  const { answers = {}, goOn = "", key } = kept({});
  const letters = completions.map(({ id }) => id);
  now = { letters, answers, goOn, key, widgets: [], since: performance.now(), html: new Map() };
  now.save = () => keep({ answers: now.answers, goOn: now.goOn, key: now.key });
  const stages = talk.schema.stages;
  const rank = stages.flatMap((stage) => stage.questions.map((question) => ({ stage, question }))).find(({ question }) => question.type === "rank");
  const order = () => (rank && now.answers[rank.stage.id]?.[rank.question.id]) ?? ranks.nothing();
  const setOrder = (next, id) => {
    answer(rank.stage, rank.question, "").set(next.tiers.length || next.unusable.length ? next : undefined);
    announce(described(order(), id, letters));
  };
  now.strip = rank ? tierStrip({ letters, question: rank.question, get: order, set: setOrder }) : null;
  now.order = order;
  const cards = completions.map(({ id, content }) => card(id, drawn(content.text), content.text));
  const perItem = stages.filter((stage) => stage.per === "item").flatMap((stage) => stage.questions.filter(({ type }) => type !== "rank").map((question) => asked(stage, question, "")));
  now.go = goingOn();
  now.why = el("button", { type: "button", class: "why-not", id: "why-not", onclick: () => pointTo(lacking()[0]) });
  now.button = el("button", { type: "button", class: "button first submit", "aria-describedby": "why-not", onclick: submit }, t("chat.go_on"), el("kbd", { class: "wide-only" }, keys.shown("mod+enter")));
  const dock = el("fieldset", { class: "dock bare", "aria-label": t("work.dock") }, now.strip && el("div", { class: "order" }, now.strip.element), perItem,
    el("div", { class: "last" }, now.go.element, el("div", { class: "actions" }, now.why, now.button)));
  fill(root, el("div", { class: "work" }, el("aside", { class: "prompt" }, guidelines(drawn), transcript(drawn)),
    el("div", { class: "judge" }, el("section", { class: "cards two", "aria-label": t("work.answers") }, cards)), dock));
  update();
}

function card(id, text, raw) {
  const name = id.toUpperCase();
  const badge = el("button", { type: "button", class: "letter grip", "aria-label": t("work.grip", { name }), tabindex: "-1" }, name);
  const chip = now.strip && el("button", { type: "button", class: "rank-chip", onclick: now.strip.choices(id) });
  const copy = el("button", { type: "button", class: "button quiet small-button", onclick: () => navigator.clipboard?.writeText(raw).then(() => toast(t("work.copied"), { stays: 1500 })) }, t("work.copy"));
  const own = talk.schema.stages.filter((stage) => stage.per === "completion").map((stage) => el("div", { class: "stage" }, stage.questions.map((question) => asked(stage, question, id))));
  const made = el("article", { class: "card", tabindex: "0", "data-id": id, "data-drop": now.strip ? "card" : null }, el("header", {}, badge, chip, el("span", { class: "grow" }), copy), el("div", { class: "answer is-open" }, text), own);
  now.strip?.makeDraggable(badge, id, () => now.strip.change(ranks.isPlaced(now.order(), id) ? ranks.better : ranks.last, id));
  now.widgets.push({ element: made, update: () => chip && marked(chip, id) });
  return made;
}

function marked(chip, id) {
  const at = ranks.tierOf(now.order(), id);
  const isOut = now.order().unusable.includes(id);
  chip.textContent = isOut ? "✗" : at < 0 ? t("chat.place") : String(at + 1);
  chip.setAttribute("aria-label", described(now.order(), id, now.letters));
  chip.classList.toggle("is-set", at >= 0);
  chip.classList.toggle("is-out", isOut);
}

function answer(stage, question, letter) {
  return {
    letter,
    original: letter ? last().completions.find(({ id }) => id === letter).content.text : "",
    get: () => given(now.answers, stage, letter)[question.id],
    set: (value) => {
      now.answers[stage.id] ??= {};
      const at = letter ? (now.answers[stage.id][letter] ??= {}) : now.answers[stage.id];
      if (value === undefined) delete at[question.id];
      else at[question.id] = value;
      now.key = undefined; // other answers are another submission
      now.save();
      update();
    },
  };
}

function asked(stage, question, letter) {
  const made = question.type === "flag" ? flag(question, answer(stage, question, letter), "") : widget(question, answer(stage, question, letter));
  now.widgets.push({ ...made, stage, question, letter });
  return made.element;
}

/* The best is gone on with, in a red team the worst; or the one that is named. */
function goingOn() {
  const inputs = ["", ...now.letters].map((letter) => {
    const input = el("input", { type: "radio", class: "unseen", name: "go-on", value: letter, checked: now.goOn === letter, onchange: () => ((now.goOn = letter), now.save(), update()) });
    return el("label", { class: "pill" }, input, el("span", {}, letter ? letter.toUpperCase() : t(talk.red_team ? "chat.worst" : "chat.best")));
  });
  return { element: el("fieldset", { class: "go-on" }, el("legend", { class: "unseen" }, t("chat.go_on_with")), el("span", { class: "label", "aria-hidden": "true" }, t("chat.go_on_with")), el("span", { class: "pills" }, inputs)) };
}

const lacking = () => missing(talk.schema, now.answers, now.letters, []);

function update() {
  now.strip?.update();
  for (const { stage, question, letter, element, update: one } of now.widgets) {
    if (question) element.hidden = !holds(question.show_if, given(now.answers, stage, letter), []);
    one();
  }
  const found = lacking();
  const first = found[0];
  const key = first && `missing.${first.reason}${first.letter && first.reason !== "places" ? "_of" : ""}`;
  now.why.textContent = first ? t(key, { n: first.n, question: nameOf(first.question), name: first.letter?.toUpperCase() }) : "";
  now.button.setAttribute("aria-disabled", String(Boolean(first)));
}

function pointTo(first) {
  if (!first) return;
  const made = now.widgets.find(({ question, letter }) => question === first.question && letter === first.letter);
  if (made) made.focus?.();
  else root.querySelector(".strip .chip")?.focus();
}

/* One's conversations, and a new one. */
async function list() {
  clearTimeout(polling);
  talk = now = null;
  history.replaceState(null, "", location.pathname);
  const all = await api("GET", `/projects/${encodeURIComponent(project)}/chats`);
  const red = el("input", { type: "checkbox" });
  const go = (one) => () => {
    location.hash = one.chat;
  };
  const rows = all.filter(({ turns }) => turns).map((one) => el("li", {}, el("button", { type: "button", class: "past", onclick: go(one) },
    el("span", { class: `tag ${one.state === "open" ? "good" : ""}` }, t(`chat.is_${one.state}`)),
    el("span", { class: "excerpt" }, one.red_team && el("span", { class: "red" }, `${t("chat.red_team")} `), one.title), el("span", { class: "soft small" }, t("chat.turns", { n: one.turns }), " · ", date(one.created)))));
  fill(root, el("div", { class: "talk" }, el("h1", {}, t("chat.title")),
    el("div", { class: "sheet stack" }, el("p", { class: "soft" }, t("chat.what")), el("label", { class: "row small" }, red, el("span", {}, t("chat.red_team"), " ", el("span", { class: "soft" }, t("chat.red_why")))),
      el("div", { class: "row" }, el("button", { type: "button", class: "button first", onclick: () => changing(() => begin(red.checked)) }, t("chat.begin")))),
    rows.length > 0 && el("section", { class: "stack" }, el("h2", {}, t("chat.yours")), el("ul", { class: "chats" }, rows))));
}

page({ title: "chat.title", isWide: true }, async ({ main, place }) => {
  project = place.project;
  root = main;
  keys.add([{ keys: "mod+enter", name: "key.submit", run: () => now && submit(), isTyping: true }]);
  const turnTo = () => (location.hash.length > 1 ? location.hash.slice(1) !== talk?.chat && open(location.hash.slice(1)) : list());
  addEventListener("hashchange", () => Promise.resolve(turnTo()).catch((problem) => toast(problem.message, { kind: "bad" })));
  await turnTo();
});
