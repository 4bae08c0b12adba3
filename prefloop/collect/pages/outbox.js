// Nothing typed is lost: every change is on this device before it is on its way, and leaves it only once the server has it.
//
// A draft goes to the server by revision (If-Match); a submission waits in the outbox under a key of its own, so that sending
// it again is safe. Both survive a reload, a dead server, an expired lease and being offline.
import { api, connection, me, Problem } from "./base.js";

const read = (name) => {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
};
const draftName = (assignment) => `prefloop.draft.${me.user}.${assignment}`;
const outName = () => `prefloop.outbox.${me.user}`;

function write(name, value) {
  for (;;) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch {
      if (!forgetOldest(name)) return false; // the server still gets it
    }
  }
}

/* Room: the oldest draft that the server has too. What only this device has is never thrown away. */
function forgetOldest(except) {
  const known = Object.keys(localStorage).filter((name) => name.startsWith("prefloop.draft.") && name !== except)
    .map((name) => [name, read(name)]).filter(([, kept]) => !kept?.isUnsent).sort(([, a], [, b]) => (a?.at ?? 0) - (b?.at ?? 0));
  if (known.length) localStorage.removeItem(known[0][0]);
  return known.length > 0;
}

/* Not a word about what was sent: nobody there, too busy, or not signed in. Trying again may do. */
const isAway = (problem) => problem instanceof Problem && (problem.status >= 500 || [0, 401, 408, 429].includes(problem.status) || problem.code === "csrf");
const later = (n) => Math.min(30_000, 1000 * 2 ** n) * (0.75 + Math.random() / 2);

// --- drafts --------------------------------------------------------------------------------------------------------------------

export const keptDraft = (assignment) => read(draftName(assignment));
export const forgetDraft = (assignment) => localStorage.removeItem(draftName(assignment));

/* The draft of one turn. onState hears "saving", "saved", "device" (kept here, not there yet); onConflict({ rev, body }) what
   somebody (another tab, another device) saved instead; onLease what the server says about the lease. */
export function keeper({ assignment, rev, onState, onConflict, onLease }) {
  let waiting = null; // a body that the server does not have
  let timer = 0;
  let busy = null;
  let fails = 0;
  let isOver = false;

  const keep = (body) => {
    waiting = body;
    write(draftName(assignment), { rev, body, isUnsent: true, at: Date.now() });
    onState("saving");
    schedule(800);
  };
  const schedule = (wait) => {
    clearTimeout(timer);
    if (!isOver) timer = setTimeout(push, wait);
  };
  const push = () => (busy ??= send().finally(() => {
    busy = null;
    if (waiting && !isOver) schedule(fails ? later(fails) : 200);
  }));
  const send = async () => {
    const body = waiting;
    if (!body || isOver) return;
    try {
      const saved = await api("PUT", `/assignments/${assignment}/draft`, { body: { body }, headers: { "If-Match": String(rev) } });
      rev = saved.rev;
      fails = 0;
      if (waiting === body) waiting = null;
      if (isOver) return;
      write(draftName(assignment), { rev, body: waiting ?? body, isUnsent: waiting !== null, at: Date.now() });
      if (!waiting) onState("saved");
      onLease(saved);
    } catch (problem) {
      if (isOver) return;
      fails += 1;
      if (problem.code === "draft_conflict") {
        waiting = null;
        fails = 0;
        onConflict(problem.more);
      } else if (!isAway(problem)) {
        waiting = null; // it is kept here; the same words would be refused again
      }
      onState("device");
    }
  };
  const retry = () => connection.isThere && waiting && schedule(0);
  connection.addEventListener("change", retry);
  connection.addEventListener("retry", () => waiting && schedule(0));
  return {
    keep,
    isUnsent: () => waiting !== null,
    flush: async () => {
      clearTimeout(timer);
      await busy;
      await push();
    },
    continueFrom: (newer) => (rev = newer),
    stop: () => {
      isOver = true;
      clearTimeout(timer);
      connection.removeEventListener("change", retry);
    },
  };
}

// --- submissions ---------------------------------------------------------------------------------------------------------------

export const unsent = () => read(outName()) ?? [];
export const outbox = new EventTarget();
let fails = 0;
let timer = 0;

const save = (entries) => {
  write(outName(), entries);
  outbox.dispatchEvent(new Event("change"));
};
const dropped = (key) => save(unsent().filter((entry) => entry.key !== key));
const freshKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/* Send now if the server is there: { isSent, data } ; { isSent: false } where it waits; a refusal is thrown, and not kept. */
export async function send({ assignment, action, body }) {
  const entry = { key: freshKey(), assignment, action, body };
  save([...unsent(), entry]);
  try {
    return { isSent: true, data: await deliver(entry) };
  } catch (problem) {
    if (!isAway(problem)) throw problem;
    schedule();
    return { isSent: false };
  }
}

async function deliver({ key, assignment, action, body }) {
  try {
    const data = await api("POST", `/assignments/${assignment}/${action}`, { body, headers: { "Idempotency-Key": key } });
    dropped(key);
    forgetDraft(assignment);
    fails = 0;
    return data;
  } catch (problem) {
    if (problem.code === "already_submitted") { // from another tab, or long ago: it is there
      dropped(key);
      forgetDraft(assignment);
      return null;
    }
    if (!isAway(problem)) dropped(key);
    throw problem;
  }
}

function schedule(wait = later(fails)) {
  clearTimeout(timer);
  timer = setTimeout(deliverAll, wait);
}

/* Everything that waits, oldest first; what is refused is told (its draft stays) and does not hold up the rest. */
export async function deliverAll() {
  for (const entry of unsent()) {
    try {
      await deliver(entry);
      outbox.dispatchEvent(new CustomEvent("sent", { detail: entry }));
    } catch (problem) {
      if (isAway(problem)) {
        fails += 1;
        return schedule();
      }
      outbox.dispatchEvent(new CustomEvent("refused", { detail: { entry, problem } }));
    }
  }
  return undefined;
}
connection.addEventListener("change", () => connection.isThere && unsent().length && schedule(0));
connection.addEventListener("retry", () => unsent().length && schedule(0));
