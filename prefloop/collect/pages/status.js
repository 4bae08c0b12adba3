// The top bar while somebody works: what is saved, what is done, the time; and the signs of life it is measured by.
import { api, el, icon, preferences, duration, t, toast } from "./base.js";
import { history, saveNow } from "./flow.js";
import { unsent } from "./outbox.js";
import { now } from "./turn.js";

const BEAT = 60_000;
const IDLE = 60_000; // without a sign of life, time is not counted as work
const CLOCK = "M3 12a9 9 0 1 0 3-6.7L3 8m0-5v5h5m4-1v5l3 2";

const moved = { pointer: 0, touch: 0, keyboard: 0 };
let lastSign = Date.now();
export const bar = {};

/* What was used most. */
export const inputKind = () => {
  const [kind, n] = Object.entries(moved).sort(([, a], [, b]) => b - a)[0];
  return n ? { pointer: "mouse", touch: "touch", keyboard: "keyboard" }[kind] : "";
};

export function state(kind) {
  const n = unsent().length;
  bar.state.className = `state ${n ? "unsent" : kind}`;
  bar.state.textContent = n ? t("save.unsent", { n }) : kind === "new" ? "" : t(`save.${kind}`);
  bar.state.title = kind === "saved" ? t("save.when", { time: new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }).format(Date.now()) }) : "";
  bar.kind = kind;
}

let wasHeld = true;
export function lease({ is_held: isHeld }) {
  if (wasHeld && !isHeld && now?.screen.state !== "submitted") toast(t("work.lapsed"), { stays: 12_000 });
  wasHeld = isHeld;
}

export function progress() {
  bar.progress.textContent = t("home.today", { n: bar.done });
}

export function signs() {
  const sign = (kind) => () => {
    lastSign = Date.now();
    moved[kind] += 1;
  };
  addEventListener("pointerdown", (event) => sign(event.pointerType === "touch" ? "touch" : "pointer")(), true);
  addEventListener("keydown", sign("keyboard"), true);
  addEventListener("pointermove", () => (lastSign = Date.now()), { passive: true });
  addEventListener("scroll", () => (lastSign = Date.now()), { passive: true, capture: true });
  let before = Date.now();
  setInterval(() => {
    const passed = Math.min(2000, Date.now() - before);
    before = Date.now();
    if (now && !now.isPast && document.visibilityState === "visible" && Date.now() - lastSign < IDLE) now.active += passed;
    bar.timer.textContent = now && !now.isPast ? duration(now.active) : "";
  }, 1000);
  setInterval(() => {
    if (!now || now.isPast || document.visibilityState !== "visible" || Date.now() - lastSign > 5 * BEAT) return;
    api("POST", `/assignments/${now.screen.assignment}/heartbeat`).then(lease, () => {});
  }, BEAT);
}

export function topParts() {
  bar.progress = el("span", { class: "soft small wide-only progress" });
  bar.timer = el("button", { type: "button", class: "button quiet timer wide-only", "aria-label": t("work.timer"), title: t("work.timer"), onclick: () => preferences.set("timer", bar.timer.classList.toggle("is-hidden") ? "hidden" : "shown") });
  bar.state = el("button", { type: "button", class: "state", onclick: saveNow });
  bar.where = el("span", { class: "where" });
  const past_ = el("button", { type: "button", class: "button quiet icon wide-only", title: t("work.history"), "aria-label": t("work.history"), onclick: history }, icon(CLOCK));
  return [bar.where, el("span", { class: "grow" }), bar.state, bar.progress, bar.timer, past_];
}
