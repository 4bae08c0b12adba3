/* What every page stands on. To add a page called "people" at /people:

   1. pages.py: one line in PAGES,  "/people": "people"  ("/people/{project}" gives its part to you as place.project).
   2. pages/people.js, an ES module; import only from "./…js" of this folder. pages/people.css is linked if it is there.
   3. Its texts in texts.en.json AND texts.zh.json, keys "people.title", …; a test holds the two to the same keys. A page is sent
      the keys whose first part its modules name in a literal: "people.title", `people.${x}`.

     import { api, el, page, t, toast } from "./base.js";

     page({ title: "people.title" }, async ({ main, me, place }) => {
       const { users } = await api("GET", "/users");                  // "/api/v1" is put before it
       main.append(el("h1", {}, t("people.title")), el("ul", {}, users.map((user) => el("li", {}, user.login))));
     });

   page(options, draw)   waits for the texts and for GET /me, draws the top bar, calls draw; what it throws is shown.
                         options: title (a key), isOpen (needs nobody logged in), isWide (main is yours to lay out),
                         isNarrow, bar (elements for the top bar). draw gets { main, me, place, bar }.
   el(tag, attributes, ...children)   an element. Attributes: class, for, data-…, aria-…, type …; onclick etc. take functions;
                         true sets, false/null/undefined leaves out. Children: strings (never parsed as HTML), elements, lists.
   api(method, path, { body, headers, timeout })   JSON out, JSON in (null for 204). Throws Problem { status, code, message, detail, more };
                         message is in the page's language; status 0 = no answer came. A session that ended asks for the
                         password in place and goes on. api.answer(…) gives { status, headers, data }.
   t(key, values)        a text in the page's language: "{n} left" takes { n: 3 }; "key.one" is used where n is 1.
   words(said, fallback) what a schema says in the page's language: { en, zh } or a string.  language is "en" or "zh".
   date(ms), number(n), nth(n), duration(ms)   in the page's language.
   latest()              for lists and views asked for again before the answer came: const asking = latest(); then, each time,
                         const isLast = asking(); … await api(…); if (!isLast()) return; what was asked last is what is shown.
   rendered([text, …])   Promise of HTML the server made and cleaned; showHtml(element, html) is the ONLY way it gets in.
   toast(text, { kind, action: { label, run } })      announce(text) says it to screen readers only.
   dialog({ title, body, actions: [{ value, label, kind }], isWide, onOpen })   Promise of the value chosen, null if closed.
   ask(title, text, label)   Promise of true or false.        menu(anchor, [{ label, run, hint, isChecked }])
   keys.add([{ keys: "mod+s", name: "key.save", run }])   a keyboard shortcut; listed under `?`, can be changed there, silent
                         while typing (unless isTyping), in dialogs and during IME composition. Returns a function that removes them.
   preferences.get(name, default), preferences.set(name, value)   kept with the account.

   No inline script or style, no innerHTML, no style="" attribute (element.style.x = … is allowed): the policy refuses them.
   Colours, sizes and controls are in base.css: .button(.first .quiet .danger .icon) .input .field .sheet .note(.warn .bad) .tag
   .row .stack .soft .small .wrong .unseen, table.data, .md (rendered text), .raw (text as typed). Use its tokens, no new colours. */

const HERE = new URL(".", import.meta.url);
export const language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
const texts = fetch(new URL(`texts.${document.getElementById("page").dataset.name}.${language}.json`, HERE)).then((answer) => answer.json());
let said = {};
export let me = null;

// --- words -------------------------------------------------------------------------------------------------------------------

export function t(key, values = {}) {
  const found = (values.n === 1 && said[`${key}.one`]) || said[key];
  if (found === undefined) return key;
  return found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

export const has = (key) => key in said;

export function words(given, fallback = "") {
  if (typeof given === "string") return given;
  return given?.[language] || given?.en || given?.zh || fallback;
}

export const locale = language === "zh" ? "zh-CN" : "en-GB";
export const number = (n) => new Intl.NumberFormat(locale).format(n);
const ENDS = { one: "st", two: "nd", few: "rd", other: "th" };
export const nth = (n) => (language === "zh" ? String(n) : `${n}${ENDS[new Intl.PluralRules("en", { type: "ordinal" }).select(n)]}`);
export function date(ms) {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }).format(ms);
}
export function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

// --- elements ----------------------------------------------------------------------------------------------------------------

const SVG = new Set(["svg", "path", "circle", "rect", "g", "line", "text", "title", "polyline"]);

export function el(tag, attributes = {}, ...children) {
  const isSvg = SVG.has(tag) && tag !== "title";
  const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (name === "value") made.value = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/* The one place where a string becomes markup; what comes here was made by the server's render(). */
const policy = globalThis.trustedTypes?.createPolicy("prefloop", { createHTML: (html) => html });
export function showHtml(element, html) {
  element.innerHTML = policy ? policy.createHTML(html) : html;
  return element;
}

const drawn = new Map();
export async function rendered(wanted) {
  const missing = [...new Set(wanted)].filter((text) => !drawn.has(text));
  if (missing.length) {
    const { html } = await api("POST", "/render", { body: { texts: missing } });
    if (drawn.size > 500) drawn.clear();
    missing.forEach((text, place) => drawn.set(text, html[place]));
  }
  return wanted.map((text) => drawn.get(text) ?? "");
}

// --- the server --------------------------------------------------------------------------------------------------------------

export class Problem extends Error {
  constructor(status, code, detail = "", more = {}) {
    super(has(`problem.${code}`) ? t(`problem.${code}`, more) : t("problem.other", { code, detail }));
    Object.assign(this, { status, code, detail, more });
  }
}

export const connection = new EventTarget();
connection.isThere = true;
function heard(isThere) {
  if (connection.isThere === isThere) return;
  connection.isThere = isThere;
  connection.dispatchEvent(new Event("change"));
}
addEventListener("online", () => connection.dispatchEvent(new Event("retry")));

export async function api(method, path, options) {
  return (await api.answer(method, path, options)).data;
}

api.answer = async function answer(method, path, { body, headers = {}, timeout = 30_000 } = {}) {
  const sent = { ...headers };
  if (method !== "GET" && me) sent["X-CSRF-Token"] ??= me.csrf;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let got, data;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    got = await fetch(`/api/v1${path}`, { method, headers: sent, body: content, signal: AbortSignal.timeout(timeout) });
    data = got.status === 204 ? null : await got.json();
  } catch {
    if (!got || got.status < 400) {
      heard(false);
      throw new Problem(0, "offline");
    }
    data = {};
  }
  heard(got.status !== 502 && got.status !== 504);
  if (got.ok) return { status: got.status, headers: got.headers, data };
  const problem = new Problem(got.status, data.code ?? "http", data.detail ?? "", data);
  const isOver = got.status === 401 && problem.code === "not_logged_in";
  const isStale = problem.code === "csrf" && me && !headers["X-CSRF-Token"]; // another tab signed in anew
  if ((isOver && me && (await signInAgain())) || (isStale && (await sameSession()))) return api.answer(method, path, { body, headers: { ...headers, "X-CSRF-Token": me.csrf }, timeout });
  throw problem;
};

let again = null;
function signInAgain() {
  again ??= askForPassword().finally(() => (again = null));
  return again;
}

async function sameSession() {
  const { user } = me;
  const now = await api("GET", "/me").catch(() => null);
  if (now?.user === user) me = now;
  return now?.user === user;
}

async function askForPassword() {
  const password = el("input", { class: "input", type: "password", autocomplete: "current-password", required: true });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const user = me;
  const body = [el("p", { class: "soft" }, t("again.why", { login: user.login })), labelled(t("login.password"), password), wrong];
  const actions = [{ value: "leave", label: t("again.leave") }, { value: "go", label: t("login.go"), kind: "first" }];
  const check = async (value) => {
    if (value === "leave") return true;
    me = null;
    try {
      me = { ...user, csrf: (await api("POST", "/auth/login", { body: { login: user.login, password: password.value } })).csrf };
      return true;
    } catch (problem) {
      me = user;
      wrong.textContent = problem.message;
      return false;
    }
  };
  const chosen = await dialog({ title: t("again.title"), body, actions, check });
  if (chosen !== "go") location.assign("/login");
  return chosen === "go";
}

export function latest() {
  let asked = 0;
  return () => {
    const mine = (asked += 1);
    return () => mine === asked;
  };
}

export function labelled(label, input, hint) {
  return el("label", { class: "field" }, el("span", {}, label), input, hint && el("span", { class: "soft" }, hint));
}

// --- what is kept with the account ---------------------------------------------------------------------------------------------

export const preferences = {
  get: (name, fallback) => me?.preferences?.[name] ?? fallback,
  async set(name, value) {
    if (!me) return;
    me.preferences = { ...me.preferences, [name]: value };
    await api("PATCH", "/me", { body: { preferences: me.preferences } }).catch(() => {});
  },
};

// --- saying things -------------------------------------------------------------------------------------------------------------

const polite = el("div", { class: "unseen", role: "status", "aria-live": "polite" });
const toasts = el("div", { class: "toasts", popover: "manual" });

export function announce(text) {
  polite.textContent = "";
  setTimeout(() => (polite.textContent = text), 30);
}

export function toast(text, { kind = "", action, stays = 6000 } = {}) {
  const close = () => {
    made.remove();
    if (!toasts.childElementCount) toasts.hidePopover?.();
  };
  const run = action && (() => (close(), action.run()));
  const made = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" }, el("span", {}, text),
    action && el("button", { type: "button", onclick: run }, action.label));
  toasts.append(made);
  toasts.hidePopover?.(); // shown anew, so that it lies above a dialog opened since
  toasts.showPopover?.();
  setTimeout(close, stays);
  return close;
}

export function dialog({ title, body, actions = [], isWide = false, onOpen, check = () => true }) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const heading = el("h2", { id: "dialog-title" }, title);
    const choose = async (value) => (await check(value)) && box.close(value);
    const buttons = actions.map(({ value, label, kind = "" }) =>
      el("button", { type: kind.includes("first") ? "submit" : "button", class: `button ${kind}`, value,
        onclick: (event) => (event.preventDefault(), choose(value)) }, label));
    const submit = (event) => {
      event.preventDefault();
      const first = actions.find(({ kind = "" }) => kind.includes("first"));
      if (first) choose(first.value);
    };
    const form = el("form", { method: "dialog", onsubmit: submit }, heading, body, el("div", { class: "actions" }, buttons));
    const box = el("dialog", { class: isWide ? "wide" : "", "aria-labelledby": "dialog-title" }, form);
    box.addEventListener("close", () => {
      resolve(box.returnValue || null);
      box.remove();
      before?.focus?.();
    });
    document.body.append(box);
    box.showModal();
    onOpen?.(box);
  });
}

export async function ask(title, text, label = t("yes")) {
  const actions = [{ value: "no", label: t("cancel") }, { value: "yes", label, kind: "first" }];
  return (await dialog({ title, body: el("p", {}, text), actions })) === "yes";
}

export function menu(anchor, items) {
  const choose = (run) => () => (box.hidePopover(), run());
  const box = el("div", { class: "menu", role: "menu", popover: "auto" }, items.filter(Boolean).map(({ label, run, hint, isChecked }) =>
    el("button", { type: "button", role: isChecked === undefined ? "menuitem" : "menuitemradio", tabindex: "-1", onclick: choose(run),
      "aria-checked": isChecked === undefined ? null : String(isChecked) }, el("span", {}, label), hint && el("kbd", {}, hint))));
  const move = (event) => {
    const all = [...box.children];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    all.at((all.indexOf(document.activeElement) + step) % all.length).focus();
  };
  box.addEventListener("keydown", move);
  box.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    if (box.contains(document.activeElement) || document.activeElement === document.body) anchor.focus();
    box.remove();
  });
  document.body.append(box);
  box.showPopover();
  const at = anchor.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8));
  const isBelow = at.bottom + box.offsetHeight + 8 < innerHeight;
  box.style.left = `${left}px`;
  box.style.top = `${isBelow ? at.bottom + 4 : Math.max(8, at.top - box.offsetHeight - 4)}px`;
  (box.querySelector("[aria-checked=true]") ?? box.firstElementChild)?.focus();
}

// --- keys ----------------------------------------------------------------------------------------------------------------------

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const TEXT = "input:not([type=radio], [type=checkbox], [type=button], [type=range]), textarea, select, [contenteditable=true]";
const bindings = [];

/* The name of a key press, as "mod+shift+z", "r", "?", "shift+3": letters by what they are, digits by where they are. */
export function pressed(event) {
  const isDigit = /^(Digit|Numpad)\d$/.test(event.code);
  const isLetter = /^Key[A-Z]$/.test(event.code);
  let name = event.key === " " ? "space" : event.key.toLowerCase();
  if (isDigit && (event.shiftKey || event.altKey)) name = event.code.slice(-1);
  else if (isLetter && !/^[a-z]$/.test(name)) name = event.code.slice(3).toLowerCase(); // another script's layout
  const isCased = isLetter || isDigit || name.length > 1;
  const parts = [(event.ctrlKey || event.metaKey) && "mod", event.altKey && "alt", event.shiftKey && isCased && "shift", name];
  return parts.filter(Boolean).join("+");
}

export const isComposing = (event) => event.isComposing || event.keyCode === 229;

export const keys = {
  add(added) {
    bindings.push(...added);
    return () => added.forEach((one) => bindings.splice(bindings.indexOf(one), 1));
  },
  of: (binding) => (binding.shown ? binding.keys : preferences.get("keys", {})[binding.name] ?? binding.keys), // a row of digits stays one
  shown: (combination) => combination.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(IS_MAC ? "" : "+"),
};
const NAMES = { mod: IS_MAC ? "⌘" : "Ctrl", shift: "⇧", alt: IS_MAC ? "⌥" : "Alt", arrowup: "↑", arrowdown: "↓", arrowleft: "←", arrowright: "→", enter: "↵", escape: "Esc", space: "␣", backspace: "⌫" };

document.addEventListener("keydown", (event) => {
  if (isComposing(event) || event.defaultPrevented || document.querySelector("dialog[open], [popover=auto]:popover-open")) return;
  const isTyping = event.target.closest?.(TEXT) !== null && event.target.closest?.(TEXT) !== undefined;
  const name = pressed(event);
  const sign = !event.ctrlKey && !event.metaKey && /^[^a-z0-9]$/i.test(event.key) ? event.key : name; // "=" may need Shift
  for (const binding of [...bindings].reverse()) {
    const wanted = keys.of(binding).split(" ");
    if (!(wanted.includes(name) || wanted.includes(sign)) || (isTyping && !binding.isTyping)) continue;
    if ((name === "enter" || name === "space") && event.target.closest?.("button, a, summary, label, input")) continue;
    if (binding.run(event) !== false) {
      event.preventDefault();
      return;
    }
  }
});

async function showKeys() {
  const listed = bindings.filter((binding, place) => bindings.findIndex((other) => other.name === binding.name) === place);
  const change = (binding, button) => {
    const listen = (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (isComposing(event) || ["Shift", "Control", "Meta", "Alt"].includes(event.key)) return;
      button.removeEventListener("keydown", listen);
      if (event.key !== "Escape") preferences.set("keys", { ...preferences.get("keys", {}), [binding.name]: pressed(event) });
      fill(button, el("kbd", {}, keys.shown(keys.of(binding).split(" ")[0])));
    };
    button.textContent = t("keys.press");
    button.addEventListener("keydown", listen);
  };
  const rows = listed.map((binding) => el("tr", {}, el("td", {}, t(binding.name)), el("td", { class: "number" },
    binding.shown ? el("kbd", {}, binding.shown) : keys.of(binding).split(" ").map((one, place) => place === 0
      ? el("button", { type: "button", class: "button quiet", title: t("keys.change"), onclick: ({ currentTarget }) => change(binding, currentTarget) }, el("kbd", {}, keys.shown(one)))
      : el("kbd", {}, keys.shown(one))))));
  const body = el("div", { class: "keys" }, el("table", { class: "data" }, el("tbody", {}, rows)), el("p", { class: "soft small" }, t("keys.note")));
  const actions = [{ value: "reset", label: t("keys.reset") }, { value: "close", label: t("close"), kind: "first" }];
  if ((await dialog({ title: t("keys.title"), body, actions })) === "reset") await preferences.set("keys", {});
}

// --- the frame -----------------------------------------------------------------------------------------------------------------

export function setTheme(theme) {
  localStorage.setItem("prefloop.theme", theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export async function setLanguage(chosen) {
  localStorage.setItem("prefloop.language", chosen);
  if (me) await api("PATCH", "/me", { body: { locale: chosen } }).catch(() => {});
  location.reload();
}

export function icon(path) {
  return el("svg", { viewBox: "0 0 24 24", width: "18", height: "18", fill: "none", stroke: "currentColor", "stroke-width": "2",
    "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" }, el("path", { d: path }));
}
const SUN = "M12 3v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z";
const PERSON = "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7 9c0-4 3-6 7-6s7 2 7 6";

function topBar(bar) {
  const mark = el("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" }, el("rect", { width: "32", height: "32", rx: "8", fill: "var(--accent)" }),
    el("path", { d: "M8 9h16M8 16h11M8 23h6", stroke: "var(--on-accent)", "stroke-width": "3.4", "stroke-linecap": "round" }));
  const theme = localStorage.getItem("prefloop.theme") ?? "auto";
  const themes = ({ currentTarget }) => menu(currentTarget, ["auto", "light", "dark"].map((one) => (
    { label: t(`theme.${one}`), isChecked: (localStorage.getItem("prefloop.theme") ?? theme) === one, run: () => setTheme(one) })));
  const mine = ({ currentTarget }) => menu(currentTarget, [
    { label: t("bar.home"), run: () => location.assign("/") },
    (me.is_owner || me.projects.some(({ role }) => role !== "annotator")) && { label: t("projects.title"), run: () => location.assign("/projects") },
    { label: t("keys.title"), hint: "?", run: showKeys },
    { label: t("bar.password"), run: changePassword },
    { label: t("bar.sessions"), run: showSessions },
    { label: t("bar.leave"), run: leave },
  ]);
  const other = language === "zh" ? "en" : "zh";
  return el("header", { class: "top" }, el("a", { class: "skip-link", href: "#main" }, t("bar.skip")),
    el("a", { class: "brand", href: "/", "aria-label": "Prefloop" }, mark, el("span", { class: bar?.childElementCount ? "wide-only" : "" }, "Prefloop")), bar ?? el("span", { class: "grow" }),
    el("button", { type: "button", class: "button quiet", lang: other, "aria-label": t("bar.language"), onclick: () => setLanguage(other) }, other === "zh" ? "中文" : "EN"),
    el("button", { type: "button", class: "button quiet icon", "aria-label": t("bar.theme"), title: t("bar.theme"), "aria-haspopup": "menu", onclick: themes }, icon(SUN)),
    me && el("button", { type: "button", class: "button quiet icon", "aria-label": t("bar.account", { name: me.display || me.login }),
      title: me.display || me.login, "aria-haspopup": "menu", onclick: mine }, icon(PERSON)));
}

const leaving = []; // what must be safe before somebody logs out; each may refuse by answering false
export const beforeLeaving = (check) => leaving.push(check);

async function leave() {
  for (const check of leaving) if ((await check()) === false) return;
  await api("POST", "/auth/logout").catch(() => {});
  location.assign("/login");
}

async function changePassword() {
  const old = el("input", { class: "input", type: "password", autocomplete: "current-password", required: true });
  const fresh = el("input", { class: "input", type: "password", autocomplete: "new-password", required: true, minlength: "10" });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const check = async (value) => {
    if (value !== "go") return true;
    try {
      await api("POST", "/me/password", { body: { old: old.value, new: fresh.value } });
      return true;
    } catch (problem) {
      wrong.textContent = problem.message;
      return false;
    }
  };
  const body = [labelled(t("password.old"), old), labelled(t("password.new"), fresh, t("password.hint")), wrong];
  const actions = [{ value: "no", label: t("cancel") }, { value: "go", label: t("password.change"), kind: "first" }];
  if ((await dialog({ title: t("bar.password"), body, actions, check })) === "go") toast(t("password.changed"));
}

/* Where one is signed in; each other place can be signed out from here. */
async function showSessions() {
  const list = el("ul", { class: "plain stack" });
  const draw = async () => fill(list, (await api("GET", "/me/sessions")).map((one) => el("li", { class: "row", "data-session": one.id }, el("span", { class: "grow" }, one.agent || "–", el("br"), el("span", { class: "small soft" }, t("session.last", { date: date(one.last_used) }))),
    one.is_this ? el("span", { class: "tag good" }, t("session.this")) : el("button", { type: "button", class: "button small-button", onclick: () => api("DELETE", `/me/sessions/${one.id}`).then(draw) }, t("session.end")))));
  await draw();
  await dialog({ title: t("bar.sessions"), body: list, actions: [{ value: "done", label: t("session.done"), kind: "first" }] });
}

export async function page({ title, isOpen = false, isWide = false, isNarrow = false, bar = null }, draw) {
  const holder = document.getElementById("page");
  try {
    said = await texts;
    me = await api("GET", "/me").catch((problem) => {
      if (problem.status === 401) return null;
      throw problem;
    });
  } catch (problem) {
    return fail(holder, problem);
  }
  if (!me && !isOpen) {
    location.replace(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    return undefined;
  }
  if (me?.locale && !localStorage.getItem("prefloop.language") && me.locale !== language) return setLanguage(me.locale);
  document.title = title ? `${t(title)} · Prefloop` : "Prefloop";
  const place = { ...holder.dataset, ...Object.fromEntries(new URLSearchParams(location.search)) };
  const [, name, ...rest] = location.pathname.split("/").map(decodeURIComponent);
  Object.assign(place, { page: name, project: rest[0] ?? "", rest });
  const main = el("main", { id: "main", tabindex: "-1", class: isWide ? "wide" : isNarrow ? "narrow" : "" });
  const made = bar ? el("div", { class: "row grow bar" }, bar) : null;
  keys.add([{ keys: "?", name: "key.help", run: showKeys }]);
  fill(holder, topBar(made), main, polite, toasts);
  holder.removeAttribute("aria-busy");
  addEventListener("unhandledrejection", ({ reason }) => reason instanceof Problem && toast(reason.message, { kind: "bad" }));
  try {
    await draw({ main, me, place, bar: made });
  } catch (problem) {
    fail(main, problem);
  }
  return undefined;
}

function fail(holder, problem) {
  if (!(problem instanceof Problem)) console.error(problem);
  const message = problem instanceof Problem ? problem.message : String(problem);
  const again = el("button", { type: "button", class: "button first", onclick: () => location.reload() }, said["fail.again"] ?? "⟳");
  fill(holder, el("div", { class: "sheet stack", role: "alert" }, el("h1", {}, said["fail.title"] ?? "·"), el("p", { class: "soft" }, message), el("div", { class: "row" }, again)));
}
