// Where answers are judged. turn.js: the turn on the screen; task.js: drawing it; flow.js: what happens to it; work_keys.js: keys.
import { api, beforeLeaving, el, fill, keys, page, preferences, t, toast } from "./base.js";
import { advance } from "./flow.js";
import { deliverAll, outbox, unsent } from "./outbox.js";
import { before } from "./practice.js";
import { bar, progress, signs, state, topParts } from "./status.js";
import { now, place } from "./turn.js";
import { flagged, KEYS, PAIR_KEYS } from "./work_keys.js";

page({ title: "work.title", isWide: true, bar: el("div", { class: "row grow bar" }) }, async ({ main, place: given, bar: holder }) => {
  Object.assign(place, { project: given.project, root: main });
  fill(holder, topParts());
  bar.timer.classList.toggle("is-hidden", preferences.get("timer") === "hidden");
  const [found, today] = await Promise.all([api("GET", `/projects/${encodeURIComponent(place.project)}`), api("GET", "/me/today")]);
  bar.done = today[found.slug] ?? 0;
  place.title = bar.where.textContent = found.title || found.slug;
  document.title = `${found.title || found.slug} · Prefloop`;
  progress();
  addEventListener("keydown", flagged, true);
  keys.add(PAIR_KEYS);
  keys.add(KEYS);
  signs();
  outbox.addEventListener("change", () => state(bar.kind ?? "new"));
  outbox.addEventListener("sent", () => toast(t("work.sent_late"), { stays: 3000 }));
  outbox.addEventListener("refused", ({ detail }) => toast(`${t("work.refused")} ${detail.problem.message}`, { kind: "bad", stays: 20_000 }));
  beforeLeaving(async () => {
    await now?.keeper.flush();
    return !unsent().length || !toast(t("work.unsent_leave"), { kind: "bad" });
  });
  addEventListener("pagehide", () => now?.keeper.flush());
  if (unsent().length) await deliverAll();
  const { left, of } = found.practice;
  if (left > 0 && left === of) await before(found.practice);
  await advance();
});
