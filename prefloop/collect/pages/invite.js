// Somebody was sent a link: /invite#SECRET. The secret stays behind the #, so that no server log and no other page sees it.
import { api, date, el, labelled, me, page, t } from "./base.js";

page({ title: "invite.title", isOpen: true, isNarrow: true }, async ({ main }) => {
  const secret = location.hash.slice(1);
  const gone = (text) => main.append(el("div", { class: "sheet stack" }, el("h1", {}, t("invite.gone")), el("p", { class: "soft" }, text),
    el("a", { class: "button", href: "/" }, t("bar.home"))));
  if (!secret) return gone(t("problem.invite_gone"));
  let invited;
  try {
    invited = await api("GET", `/invites/${encodeURIComponent(secret)}`);
  } catch (problem) {
    return gone(problem.message);
  }
  const role = t(`role.${invited.role}`);
  const what = invited.project ? t("invite.to", { project: invited.title || invited.project, role }) : t("invite.owner");
  const wrong = el("p", { class: "wrong", role: "alert" });
  const accept = async (body) => {
    wrong.textContent = "";
    try {
      await api("POST", `/invites/${encodeURIComponent(secret)}/accept`, { body });
      location.assign("/");
    } catch (problem) {
      wrong.textContent = problem.message;
    }
  };
  const head = [el("h1", {}, t("invite.title")), el("p", {}, what), el("p", { class: "soft small" }, t("invite.until", { date: date(invited.expires) }))];
  if (me) {
    return main.append(el("div", { class: "sheet stack" }, head, wrong,
      el("button", { class: "button first", type: "button", onclick: () => accept({}) }, t("invite.as", { name: me.display || me.login }))));
  }
  const login = el("input", { class: "input", name: "login", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
  const display = el("input", { class: "input", name: "display", autocomplete: "name" });
  const password = el("input", { class: "input", name: "password", type: "password", autocomplete: "new-password", required: true, minlength: "10", maxlength: "128" });
  const submit = (event) => {
    event.preventDefault();
    return accept({ login: login.value, display: display.value, password: password.value });
  };
  main.append(el("form", { class: "sheet stack", onsubmit: submit }, head, labelled(t("invite.login"), login), labelled(t("invite.name"), display, t("optional")),
    labelled(t("login.password"), password, t("password.hint")), wrong, el("button", { class: "button first", type: "submit" }, t("invite.go")),
    el("p", { class: "small soft" }, t("invite.known"), " ", el("a", { href: `/login?next=${encodeURIComponent("/invite")}` }, t("login.title")))));
  return login.focus();
});
