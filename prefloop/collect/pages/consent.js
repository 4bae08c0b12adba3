// What somebody agrees to before their first turn in a project.
import { api, dialog, el, rendered, showHtml, t, words } from "./base.js";

/* After a refusal that asks for it: whether they agreed. Who does not goes home. */
export async function agreed(project, { more }) {
  const [html] = await rendered([words(more.consent)]);
  const actions = [{ value: "no", label: t("consent.no") }, { value: "yes", label: t("consent.yes"), kind: "first" }];
  const answer = await dialog({ title: t("consent.title"), body: showHtml(el("div", { class: "md" }), html), isWide: true, actions });
  if (answer === "yes") await api("POST", `/projects/${encodeURIComponent(project)}/consent`, { body: { words: more.words } });
  else location.assign("/");
  return answer === "yes";
}
