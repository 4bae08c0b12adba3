// Practice: what somebody is told before the first such item, and after each of them. Words of a manager's stay text.
import { announce, el, fill, t } from "./base.js";
import * as ranks from "./order.js";
import { state } from "./status.js";
import { now, order, place } from "./turn.js";

const named = (id) => id.toUpperCase();
const line = (tiers) => ranks.written({ tiers, unusable: [] }).toUpperCase();

/* Before the first: how many there are. Resolves when they go on. */
export function before({ of: n }) {
  return new Promise((resolve) => {
    const go = el("button", { type: "button", class: "button first goes-on", onclick: resolve }, t("practice.begin"));
    fill(place.root, el("div", { class: "sheet stack empty" }, el("h1", {}, t("practice.first", { n })), el("p", {}, t("practice.note")), el("div", { class: "row" }, go)));
    go.focus();
  });
}

/* What was expected, in the letters of the screen: any one of several orders, and what else has to hold. */
function wanted({ tiers = [], before: pairs = [], best, worst }) {
  const orders = tiers.map(line).join(` ${t("practice.or")} `);
  const more = [...pairs.map((pair) => line(pair.map((id) => [id]))), best && t("practice.best", { name: named(best) }), worst && t("practice.worst", { name: named(worst) })];
  return [orders, ...more].filter(Boolean);
}

function given() {
  if (now.rank) return ranks.written(order()).toUpperCase();
  const choice = now.pair && now.answers[now.pair.stage.id]?.[now.pair.question.id]?.choice;
  return choice ? (choice.length === 1 ? t("practice.best", { name: named(choice) }) : t(`pair.${choice}`)) : "";
}

const share = (score) => `${score < 1 ? Math.min(99, Math.round(100 * score)) : 100} %`;
const headline = ({ score }) => (score === 1 ? t("practice.right") : t("practice.partly", { share: share(score) }));

/* How a practice item went, as it is shown after a submit and when one looks back. */
export function told(feedback) {
  const row = (key, said) => said.length > 0 && el("div", {}, el("dt", {}, t(`practice.${key}`)), el("dd", {}, said.map((one) => el("span", { class: "order-said" }, one))));
  return [el("h2", { id: "practice-title" }, headline(feedback)), el("dl", { class: "said-rows" }, row("expected", wanted(feedback.expected)), row("yours", [given()].filter(Boolean))),
    feedback.why && el("div", { class: "raw why", dir: "auto" }, feedback.why)];
}

/* In the place of the dock, below the answers it is about: nothing on them can be changed, and the next comes when it is asked for. */
export function tell(feedback, advance) {
  now.isPast = true;
  const go = el("button", { type: "button", class: "button first goes-on", onclick: advance }, t("practice.next"), el("kbd", { class: "wide-only" }, "↵"));
  const panel = el("section", { class: "dock practice", "aria-labelledby": "practice-title" }, el("div", { class: "told stack", tabindex: "0", role: "group", "aria-labelledby": "practice-title" }, told(feedback)),
    el("div", { class: "row" }, el("span", { class: "soft small grow" }, t("practice.counts")), go));
  place.root.querySelector(".dock").replaceWith(panel);
  for (const one of place.root.querySelectorAll("fieldset")) one.disabled = true;
  state("new");
  go.focus({ preventScroll: true });
  announce([headline(feedback), `${t("practice.expected")}: ${wanted(feedback.expected).join("; ")}.`, `${t("practice.yours")}: ${given()}.`, feedback.why].join(" "));
}

/* What Enter does where there is nothing but to go on. */
export function goOn() {
  const button = place.root?.querySelector(".goes-on");
  button?.click();
  return Boolean(button);
}
