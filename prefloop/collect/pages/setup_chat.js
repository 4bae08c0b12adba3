// Setting up what answers live chats: which of the service's models, how often each, how many answers a turn gets.
import { api, el, fill, labelled, number, t, toast } from "./base.js";
import { path } from "./project_frame.js";

const EXAMPLE = `backends:
  - {name: small, url: "http://127.0.0.1:8000/v1", model: my-model}
  - {name: other, url: "https://models.example/v1", model: theirs, key_env: THEIR_KEY}`;

export async function chat(slug, box) {
  const now = await api("GET", path(slug, "/chat"));
  if (!now.known.length) return fill(box, el("p", {}, t("setup.chat_none")), el("pre", { class: "raw code" }, EXAMPLE));
  const isChosen = ({ name }) => !Object.keys(now.backends).length || name in now.backends;
  const rows = now.known.map((one) => {
    const use = el("input", { type: "checkbox", "aria-label": t("setup.chat_use", one), checked: isChosen(one), name: "use" });
    const weight = el("input", { class: "input short", type: "number", min: "0.01", step: "any", "aria-label": t("setup.chat_weight", one), value: now.backends[one.name] ?? one.weight });
    const heard = el("div", { class: "small", role: "status" });
    const attempt = el("button", { type: "button", class: "button small-button", onclick: () => tried(slug, one.name, attempt, heard) }, t("setup.chat_try"));
    return { name: one.name, use, weight, element: el("div", { class: "backend", "data-backend": one.name }, el("label", { class: "row grow" }, use, el("strong", {}, one.name), el("span", { class: "small soft" }, one.model)), weight, attempt, heard) };
  });
  const k = el("input", { class: "input", type: "number", min: "0", max: "16", name: "k", value: now.k });
  const system = el("textarea", { class: "input", rows: "2", name: "system" });
  system.value = now.system;
  const wrong = el("p", { class: "wrong", role: "alert" });
  const store = async (event) => {
    event.preventDefault();
    const chosen = rows.filter(({ use }) => use.checked);
    wrong.textContent = chosen.length ? "" : t("setup.chat_nobody");
    if (!chosen.length) return;
    try {
      await api("PATCH", path(slug, "/chat"), { body: { backends: Object.fromEntries(chosen.map(({ name, weight }) => [name, Number(weight.value)])), k: Number(k.value), system: system.value } });
      toast(t("setup.chat_stored"));
    } catch (problem) {
      wrong.textContent = problem.detail || problem.message;
    }
  };
  return fill(box, el("form", { class: "stack", onsubmit: store }, el("p", { class: "small soft" }, t("setup.chat_note")), el("div", { class: "backends" }, rows.map(({ element }) => element)),
    el("div", { class: "fields" }, labelled(t("setup.chat_k"), k, t("setup.chat_k_hint")), labelled(t("setup.chat_system"), system, t("setup.chat_system_hint"))), wrong, el("div", {}, el("button", { class: "button" }, t("setup.chat_store")))));
}

/* What a model says to a greeting, or why it says nothing. */
async function tried(slug, backend, button, heard) {
  button.disabled = true;
  fill(heard, "…");
  try {
    const { text, error, ms } = await api("POST", path(slug, "/chat/try"), { body: { backend } });
    fill(heard, el("span", { class: `tag ${error ? "warn" : "good"}` }, error ? t("setup.chat_failed") : t("setup.chat_tried", { seconds: number(Math.round(ms / 100) / 10) })), " ", error || text);
  } catch (problem) {
    fill(heard, el("span", { class: "wrong" }, problem.detail || problem.message));
  } finally {
    button.disabled = false;
  }
}
