// What happens to turns: the next one, submitting, skipping, reporting, and going back to what one did.
import { announce, api, connection, date, dialog, el, fill, labelled, rendered, t, toast } from "./base.js";
import { submission } from "./asked.js";
import { agreed } from "./consent.js";
import { keptDraft, send } from "./outbox.js";
import { tell } from "./practice.js";
import { bar, inputKind, progress, state } from "./status.js";
import { lacking, pointTo } from "./task.js";
import { body, clear, now, place, saving, show } from "./turn.js";

let ahead = null; // the next turn, held ready
let past = { turns: [], at: -1 }; // where `[` and `]` are

async function next() {
  if (ahead) {
    const screen = ahead;
    ahead = null;
    await show(screen);
    return void prefetch(); // nobody waits for it: what is on the screen can be submitted meanwhile
  }
  for (let tries = 0; tries < 5; tries += 1) {
    const { status, headers, data } = await api.answer("POST", `/projects/${encodeURIComponent(place.project)}/next`);
    if (status !== 204) {
      await show(data);
      ahead = null; // what was fetched for the turn before may be this very one
      return void prefetch();
    }
    const reason = headers.get("Prefloop-Reason");
    if (reason !== "busy") return nothingLeft(reason, Number(headers.get("Prefloop-Until")));
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return nothingLeft("busy");
}

export const advance = () => next().catch((problem) => (problem.code === "consent_needed" ? agreed(place.project, problem).then((is) => is && advance()) : problem.status === 0 ? away() : nothingLeft("", 0, problem.message)));

async function prefetch() {
  if (!now?.schema.lease.prefetch || now.isPast) return;
  const beside = [now.screen.assignment];
  const found = await api.answer("POST", `/projects/${encodeURIComponent(place.project)}/next`, { body: { beside } }).catch(() => null);
  if (found?.status !== 200 || beside[0] !== now?.screen.assignment) return;
  ahead = found.data;
  rendered([...ahead.prompt.messages.map(({ content }) => content), ...ahead.completions.map(({ content }) => content.text ?? "")]).catch(() => {});
}

function nothingLeft(reason, until, said) {
  clear();
  state("new");
  const why = said ?? t(`empty.${reason}`, { time: until ? date(until) : "" });
  fill(place.root, el("div", { class: "sheet stack empty" }, el("h1", {}, t(reason === "yours_done" || reason === "done" ? "empty.title_done" : "empty.title")), el("p", {}, why),
    el("div", { class: "row" }, el("button", { type: "button", class: "button first", onclick: advance }, t("empty.again")), el("a", { class: "button", href: "/" }, t("bar.home")),
      el("button", { type: "button", class: "button quiet", onclick: history }, t("work.history")))));
}

function away() {
  nothingLeft("", 0, t("problem.offline"));
  connection.addEventListener("change", () => now || advance(), { once: true });
  const look = () => now || api("GET", "/me/today").then(advance, () => setTimeout(look, 3000));
  setTimeout(look, 2000);
}

let isBusy = false;

async function closing(action, content, done) {
  if (!now || now.isPast || isBusy) return undefined;
  isBusy = true;
  const { screen, keeper } = now;
  try {
    keeper.stop();
    const sent = await send({ assignment: screen.assignment, action, body: content });
    const practised = sent.isSent ? sent.data?.feedback : null; // what was sent late is told nothing: something else is on the screen
    bar.done += action === "submit" && !screen.answers && !practised ? 1 : 0;
    if (practised && now?.screen === screen) {
      past = { turns: [], at: -1 };
      return tell(practised, advance);
    }
    toast(t(!sent.isSent ? "work.kept" : sent.data?.surplus ? "work.surplus" : done), action === "submit" && sent.isSent
      ? { action: { label: t("work.recall"), run: () => recall(screen.assignment) }, stays: 5000 } : {});
    past = { turns: [], at: -1 };
    return await advance();
  } catch (problem) {
    toast(problem.message, { kind: "bad" });
    now.keeper = saving(screen.assignment, keptDraft(screen.assignment)?.rev ?? screen.draft?.rev ?? 0);
    return now.keeper.keep(body());
  } finally {
    isBusy = false;
    progress();
  }
}

export function submit() {
  if (!now || now.isPast) return undefined;
  if (document.activeElement === now.line?.element) now.line.apply();
  const first = lacking()[0];
  if (first) return pointTo(first);
  const content = { answers: submission(now.schema, now.answers), active_ms: Math.round(now.active), input: inputKind() };
  return closing("submit", content, "work.submitted");
}

async function withReason(action, say) {
  if (!now || now.isPast) return;
  const chosen = { reason: "" };
  const words_ = el("textarea", { class: "input", rows: "3", maxlength: "2000" });
  const options = say.reasons.map((reason, place) => el("label", { class: "pill block" },
    el("input", { type: "radio", class: "unseen", name: "reason", value: reason, required: true, onchange: () => (chosen.reason = reason) }), el("span", {}, el("kbd", {}, String(place + 1)), " ", t(`reason.${reason}`))));
  const wrong = el("p", { class: "wrong", role: "alert" });
  const check = (value) => {
    wrong.textContent = value === "go" && !chosen.reason ? t("reason.choose") : "";
    return !wrong.textContent;
  };
  const choose = (event) => {
    const option = options[Number(event.key) - 1];
    if (!option || event.target === words_ || event.isComposing) return;
    event.preventDefault();
    option.querySelector("input").click();
    option.querySelector("input").focus();
  };
  const content = el("div", { class: "stack" }, el("p", { class: "soft" }, t(say.why)),
    el("fieldset", { class: "ask" }, el("legend", { class: "unseen" }, t("reason.choose")), options), action === "report" && labelled(t("reason.more"), words_, t("optional")), wrong);
  const actions = [{ value: "no", label: t("cancel") }, { value: "go", label: t(say.go), kind: "first" }];
  const onOpen = (box) => {
    box.addEventListener("keydown", choose);
    box.querySelector("input").focus();
  };
  if ((await dialog({ title: t(say.title), body: content, actions, check, onOpen })) !== "go") return;
  await closing(action, { reason: chosen.reason, ...(action === "report" ? { text: words_.value } : {}) }, say.done);
}

const SKIP = { title: "skip.title", why: "skip.why", go: "skip.go", done: "skip.done", reasons: ["too_hard", "unclear", "language", "uncomfortable", "other"] };
const REPORT = { title: "report.title", why: "report.why", go: "report.go", done: "report.done", reasons: ["broken", "bad_prompt", "personal", "harmful", "other"] };
export const skip = () => withReason("skip", SKIP);
export const report = () => withReason("report", REPORT);

export async function saveNow() {
  if (!now || now.isPast) return;
  if (now.keeper.isUnsent()) await now.keeper.flush();
  else toast(t("work.nothing_new"), { stays: 2000 });
}

export async function recall(assignment) {
  try {
    await now?.keeper.flush();
    const found = assignment ?? (await pastTurns()).find(({ state: one }) => one === "submitted")?.assignment;
    if (!found) return void toast(t("work.no_past"));
    const screen = await api("POST", `/assignments/${found}/recall`);
    ahead = null; // what is held is given again by the next request
    past = { turns: [], at: -1 };
    await show({ ...screen, draft: null });
    now.keeper.continueFrom(screen.draft?.rev ?? 0);
    now.keeper.keep(body()); // what was submitted is what a reload goes on from
    announce(t("work.recalled"));
  } catch (problem) {
    toast(problem.message, { kind: "bad" });
  }
}

async function pastTurns() {
  const { turns } = await api("GET", `/me/history?project_name=${encodeURIComponent(place.project)}`);
  return turns;
}

/* `[` and `]`: through what one has done, and back to the work. */
export async function leaf(step) {
  try {
    if (past.at < 0 && step < 0) return;
    if (past.at < 0) past.turns = (await pastTurns()).filter(({ state: one }) => one === "submitted" || one === "skipped" || one === "reported");
    const at = Math.min(past.at + step, past.turns.length - 1);
    if (at === past.at) return void toast(t("work.no_past"));
    await now?.keeper.flush();
    past.at = at;
    if (at < 0) await backToWork();
    else await look(past.turns[at].assignment);
  } catch (problem) {
    toast(problem.message, { kind: "bad" });
  }
}

async function look(assignment) {
  const screen = await api("GET", `/assignments/${assignment}`);
  if (now && !now.isPast) await now.keeper.flush();
  await show(screen, { isPast: !["leased", "expired", "recalled"].includes(screen.state) });
}

export async function backToWork() {
  past.at = -1;
  ahead = null;
  await advance();
}

export async function history() {
  const turns = await pastTurns();
  const open = (turn, box) => () => {
    box().close();
    look(turn.assignment).catch((problem) => toast(problem.message, { kind: "bad" }));
  };
  let made = null;
  const rows = turns.map((turn) => el("li", {}, el("button", { type: "button", class: "past", onclick: open(turn, () => made) },
    el("span", { class: `tag ${turn.state === "submitted" ? "good" : ""}` }, t(`turn.${turn.state}`)), el("span", { class: "excerpt" }, turn.prompt), el("span", { class: "soft small" }, date(turn.closed_at ?? turn.leased_at)))));
  const content = rows.length ? el("ul", { class: "history" }, rows) : el("p", { class: "soft" }, t("work.no_past"));
  await dialog({ title: t("work.history"), body: content, isWide: true, actions: [{ value: "close", label: t("close"), kind: "first" }], onOpen: (box) => (made = box) });
}
