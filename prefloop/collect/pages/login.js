// Signing in.
import { api, el, labelled, me, page, t } from "./base.js";

/* Where to go on to: a path of this server, never another one. */
export function onward(next) {
  const there = new URL(next || "/", location.origin);
  return there.origin === location.origin ? there.pathname + there.search : "/";
}

page({ title: "login.title", isOpen: true, isNarrow: true }, async ({ main, place }) => {
  if (me) return location.replace(onward(place.next));
  const login = el("input", { class: "input", name: "login", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
  const password = el("input", { class: "input", name: "password", type: "password", autocomplete: "current-password", required: true });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const go = el("button", { class: "button first", type: "submit" }, t("login.go"));
  const submit = async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    go.disabled = true;
    try {
      await api("POST", "/auth/login", { body: { login: login.value, password: password.value } });
      location.assign(onward(place.next));
    } catch (problem) {
      wrong.textContent = problem.message;
      password.select();
    }
    go.disabled = false;
  };
  main.append(el("form", { class: "sheet stack", onsubmit: submit }, el("h1", {}, t("login.title")), el("p", { class: "soft" }, t("login.lead")),
    labelled(t("login.login"), login), labelled(t("login.password"), password), wrong, go));
  return login.focus();
});
