// The reviewer's page: what waits for a look, one item with everything said of it, and what it comes to. Names stay hidden until then.
import { api, ask, date, dialog, el, fill, keys, labelled, latest, page, rendered, showHtml, t, toast, words } from "./base.js";
import { gallery } from "./media.js";
import { parse, unplaced } from "./order.js";
import { percent, shown } from "./dashboard_charts.js";
import { frame, path } from "./project_frame.js";

const LETTERS = "abcdefghijklmnop";
const REASONS = ["reported", "disagreement", "low_confidence", "gold_fail", "too_fast"];

page({ title: "view.review", isWide: true }, async ({ main, place }) => {
  const slug = place.project;
  const { head, mayManage } = await frame(slug, "review");
  const filter = el("select", { class: "input", "aria-label": t("review.filter"), onchange: () => list() }, ["", ...REASONS].map((name) => el("option", { value: name }, t(name ? `review.why_${name}` : "review.any"))));
  const queue = el("ul", { class: "plain queue" });
  const more = el("button", { type: "button", class: "button quiet", hidden: true, onclick: () => list(more.dataset.cursor) }, t("items.more"));
  const view = el("section", { class: "stack view", "aria-live": "off" });
  const listing = latest();
  const showing = latest();
  let current = null;
  main.append(el("div", { class: "review" }, head, el("div", { class: "two" }, el("aside", { class: "stack" }, filter, queue, more), view)));
  await list();
  if (place.item) await show(place.item);
  else if (queue.firstElementChild) await show(queue.firstElementChild.dataset.item);
  keys.add([{ keys: "a", name: "review.accept_all", run: () => current && decide({ method: "all" }) }, { keys: "j", name: "review.next", run: () => step(1) }, { keys: "k", name: "review.before", run: () => step(-1) }]);

  async function list(cursor = "") {
    const isLast = listing();
    const found = await api("GET", path(slug, `/review-queue?${new URLSearchParams({ reason: filter.value, cursor })}`));
    if (!isLast()) return;
    if (!cursor) fill(queue);
    queue.append(...found.items.map(entry));
    if (!queue.childElementCount && !found.cursor) fill(queue, el("li", { class: "soft" }, t("review.nothing")));
    if (!current && !place.item && !queue.querySelector("[data-item]")) fill(view, el("div", { class: "sheet stack" }, el("h2", {}, t("review.nothing")), el("p", { class: "soft" }, t("review.nothing_long"))));
    more.hidden = !found.cursor;
    more.dataset.cursor = found.cursor ?? "";
  }

  function entry(one) {
    return el("li", { "data-item": one.id }, el("button", { type: "button", class: "entry", onclick: () => show(one.id) }, el("span", { class: "said" }, one.prompt),
      el("span", { class: "row small" }, one.reasons.map((name) => el("span", { class: `tag ${name === "reported" || name === "gold_fail" ? "bad" : "warn"}` }, t(`review.why_${name}`))), el("span", { class: "soft" }, t("review.n", { n: one.n })))));
  }

  function step(by) {
    const all = [...queue.querySelectorAll("[data-item]")];
    const at = all.findIndex((one) => one.dataset.item === current?.id);
    const next = all[Math.max(0, Math.min(all.length - 1, at + by))];
    if (next) show(next.dataset.item);
  }

  async function show(id) {
    const isLast = showing();
    const one = await api("GET", `/items/${id}/review`);
    const texts = one.completions.map(({ content }) => content.text ?? "");
    const html = await rendered([...one.prompt.messages.map(({ content }) => content), ...texts]);
    if (!isLast()) return;
    current = one; // only now: what is decided is what is on the page
    for (const entry of queue.querySelectorAll("[data-item]")) entry.classList.toggle("here", entry.dataset.item === id);
    draw(one, html);
  }

  function draw(one, html) {
    const order = one.consensus ? one.consensus.tiers.flat() : one.completions.map(({ id }) => id);
    const letter = Object.fromEntries(one.completions.map(({ id }, place) => [id, LETTERS[place]]));
    const pictures = gallery();
    const turns = one.prompt.messages.map(({ role }, place) => el("div", { class: "turn" }, el("span", { class: "label" }, t(`said_by.${role}`)), showHtml(el("div", { class: "md" }), html[place])));
    const cards = one.completions.map(({ id, source, content }, place) => ({ id, card: el("article", { class: "sheet card" }, el("div", { class: "row" }, el("span", { class: "badge" }, letter[id]), source && el("span", { class: "tag" }, source)),
      content.type === "text" ? showHtml(el("div", { class: "md" }), html[one.prompt.messages.length + place]) : pictures.show(content, letter[id].toUpperCase())) }));
    const state = [one.agreement !== null && el("span", { class: `tag ${one.agreement < 0.5 ? "warn" : "good"}` }, t("review.agreement", { share: percent(one.agreement) })),
      one.confidence !== null && el("span", { class: "tag" }, t("review.confidence", { share: percent(one.confidence) })), one.kind !== "normal" && el("span", { class: "tag" }, t(`items.kind_${one.kind}`))];
    const reports = one.reports.map(({ reason, text }) => el("p", { class: "note bad" }, `${reason}: ${text}`));
    const right = one.expected?.why && el("p", { class: "note raw", dir: "auto" }, one.expected.why);
    const decided = one.final && el("div", { class: "note" }, t(`review.by_${one.final.method}`), " ", one.final.comment, " · ", date(one.final.created));
    fill(view, reports, decided, right, el("div", { class: "sheet stack" }, el("div", { class: "row" }, el("h2", { class: "grow" }, t("review.prompt")), state), turns),
      el("div", { class: "cards" }, order.map((id) => cards.find((card) => card.id === id)?.card)), matrix(one, order, letter), actions(one, letter));
  }

  function matrix(one, order, letter) {
    const scales = one.schema.stages.flatMap((stage) => stage.per === "completion" ? stage.questions.filter(({ type }) => ["likert", "number", "flag", "single"].includes(type)).map((question) => ({ stage, question })) : []);
    const wordsOf = one.schema.stages.flatMap((stage) => stage.per === "item" ? stage.questions.filter(({ type }) => type === "text").map((question) => ({ stage, question })) : []);
    const cell = (said, id) => {
      const at = one.completions.findIndex((completion) => completion.id === id);
      const place = said.places?.[at];
      const given = scales.map(({ stage, question }) => ({ question, value: said.answers[stage.id]?.[id]?.[question.id] })).filter(({ value }) => value !== undefined && value !== false);
      return el("td", {}, place !== undefined && place !== null && el("strong", { class: "place" }, String(place + 1)), given.map(({ question, value }) => el("span", { class: "tag" }, value === true ? words(question.label, question.id) : shown(value))));
    };
    const rows = one.judgments.map((said, place) => el("tr", { "data-judgment": said.id }, el("th", { scope: "row" }, said.annotator ?? t("review.person", { n: place + 1 }), el("span", { class: "small soft block" }, said.active_ms === null ? "" : `${(said.active_ms / 1000).toFixed(1)} s`), said.verdict && el("span", { class: "tag" }, t(`review.verdict_${said.verdict}`))),
      order.map((id) => cell(said, id)), el("td", { class: "why" }, wordsOf.map(({ stage, question }) => said.answers[stage.id]?.[question.id]).filter(Boolean).join("\n")),
      el("td", {}, el("div", { class: "row" }, one.judgments.length > 1 || !one.final ? el("button", { type: "button", class: "button", onclick: () => decide({ method: "judgment", judgment: said.id }) }, t("review.accept_one")) : null,
        el("button", { type: "button", class: "button", onclick: () => giveBack(said.id) }, t("review.return")), el("button", { type: "button", class: "button danger", onclick: () => reject(said.id) }, t("review.reject"))))));
    const agreed = one.consensus && el("tr", { class: "agreed" }, el("th", { scope: "row" }, t("review.consensus")), order.map((id) => el("td", {}, el("strong", { class: "place" }, String(one.consensus.tiers.findIndex((tier) => tier.includes(id)) + 1)))), el("td", {}), el("td", {}, el("span", { class: "small soft" }, one.consensus.method)));
    return el("div", { class: "sheet stack" }, el("h2", {}, t("review.judgments", { n: one.judgments.length })), one.judgments.length === 0 ? el("p", { class: "soft" }, t("review.none_yet")) : el("div", { class: "scroll" }, el("table", { class: "data matrix" },
      el("thead", {}, el("tr", {}, el("th", {}), order.map((id) => el("th", { scope: "col" }, el("span", { class: "badge" }, letter[id]))), el("th", {}, t("review.words")), el("th", {}))), el("tbody", {}, rows, agreed))));
  }

  function actions(one, letter) {
    const canRank = one.schema.stages.some((stage) => stage.questions.some(({ type }) => type === "rank"));
    return el("div", { class: "sheet row decide" }, el("button", { type: "button", class: "button first", onclick: () => decide({ method: "all" }) }, t("review.accept_all"), el("kbd", {}, "A")),
      one.consensus && canRank && el("button", { type: "button", class: "button", onclick: () => decide({ method: "consensus" }) }, t("review.accept_consensus")),
      canRank && el("button", { type: "button", class: "button", onclick: () => fix(one, letter) }, t("review.fix")),
      mayManage && one.kind === "normal" && one.schema.stages.some((stage) => stage.questions.some(({ type }) => type === "rank" || type === "pair")) && el("button", { type: "button", class: "button", onclick: () => gold(one, letter) }, t("review.gold")),
      mayManage && ["gold", "practice"].includes(one.kind) && el("button", { type: "button", class: "button", onclick: async () => (await api("DELETE", `/items/${one.id}/gold`), show(one.id)) }, t(`review.un${one.kind}`)));
  }

  async function decide(body) {
    const one = current;
    await api("POST", `/items/${one.id}/adjudicate`, { body });
    toast(t("review.decided"));
    const gone = queue.querySelector(`[data-item="${one.id}"]`);
    const next = gone?.nextElementSibling ?? gone?.previousElementSibling;
    gone?.remove();
    await show(next?.dataset.item && !place.item ? next.dataset.item : one.id);
  }

  async function fix(one, letter) {
    const input = el("input", { class: "input", value: agreed(one, letter), name: "order" });
    const comment = el("textarea", { class: "input", rows: "3" });
    const wrong = el("p", { class: "wrong", role: "alert" });
    const check = async (value) => {
      if (value !== "go") return true;
      const found = parse(input.value, Object.values(letter));
      if (found.problem) return (wrong.textContent = t(`string.${found.problem}`, { about: found.about }), false);
      try {
        const answers = Object.fromEntries(one.schema.stages.map((stage) => [stage.id, stage.per === "completion" ? together(one, stage, letter) : Object.fromEntries(stage.questions.filter(({ type }) => type === "rank" || (type === "text" && comment.value)).map(({ id, type }) => [id, type === "rank" ? found : comment.value]))]));
        await api("POST", `/items/${one.id}/adjudicate`, { body: { method: "answers", answers, comment: comment.value } });
        return true;
      } catch (problem) {
        wrong.textContent = `${problem.message} ${problem.detail}`;
        return false;
      }
    };
    const actionsOf = [{ value: "no", label: t("cancel") }, { value: "go", label: t("review.fix"), kind: "first" }];
    if ((await dialog({ title: t("review.fix_title"), body: [labelled(t("string.label"), input, t("string.hint")), labelled(t("review.comment"), comment), wrong], actions: actionsOf, check })) === "go") {
      toast(t("review.decided"));
      queue.querySelector(`[data-item="${one.id}"]`)?.remove();
      await show(one.id);
    }
  }

  /* What the judgments say of each answer together: the middle of points, the most frequent of choices. A fix changes the order. */
  function together(one, stage, letter) {
    const about = (id) => stage.questions.filter(({ type }) => ["likert", "number", "single", "flag"].includes(type)).map((question) => {
      const given = one.judgments.map((said) => said.answers[stage.id]?.[id]?.[question.id]).filter((value) => value !== undefined);
      const sorted = [...given].sort((a, b) => (a > b) - (a < b));
      const often = [...new Set(given)].sort((a, b) => given.filter((x) => x === b).length - given.filter((x) => x === a).length);
      return [question.id, ["likert", "number"].includes(question.type) ? sorted[Math.floor(sorted.length / 2)] : often[0]];
    });
    return Object.fromEntries(one.completions.map(({ id }) => [letter[id], Object.fromEntries(about(id).filter(([, value]) => value !== undefined))]));
  }

  async function giveBack(judgment) {
    const comment = el("textarea", { class: "input", rows: "4", required: true, name: "comment" });
    const wrong = el("p", { class: "wrong", role: "alert" });
    const check = async (value) => {
      if (value !== "go") return true;
      try {
        await api("POST", `/judgments/${judgment}/review`, { body: { verdict: "return", comment: comment.value } });
        return true;
      } catch (problem) {
        wrong.textContent = problem.message;
        return false;
      }
    };
    const chosen = await dialog({ title: t("review.return_title"), body: [el("p", { class: "soft" }, t("review.return_why")), labelled(t("review.comment"), comment), wrong], actions: [{ value: "no", label: t("cancel") }, { value: "go", label: t("review.return"), kind: "first" }], check });
    if (chosen === "go") await show(current.id);
  }

  async function reject(judgment) {
    if (!(await ask(t("review.reject_title"), t("review.reject_why"), t("review.reject")))) return;
    await api("POST", `/judgments/${judgment}/review`, { body: { verdict: "reject" } });
    await show(current.id);
  }

  /* The order that is right, and what it is for: to check people silently, or to show those who are new. */
  async function gold(one, letter) {
    const input = el("input", { class: "input", value: agreed(one, letter), name: "order" });
    const why = el("textarea", { class: "input", rows: "4", maxlength: "2000", name: "why" });
    const reason = labelled(t("review.why"), why, t("review.why_hint"));
    const choose = (to) => {
      reason.hidden = to === "gold";
      said.textContent = t(`review.${to}_why`);
    };
    const said = el("p", { class: "soft" });
    const kind = el("select", { class: "input", name: "kind", onchange: ({ target }) => choose(target.value) }, ["gold", "practice"].map((one) => el("option", { value: one }, t(`items.kind_${one}`))));
    const wrong = el("p", { class: "wrong", role: "alert" });
    choose("gold");
    const check = async (value) => {
      if (value !== "go") return true;
      const names = one.completions.map(({ id }) => letter[id]);
      const found = parse(input.value, names);
      const left = found.problem ? [] : unplaced(found, names);
      if (found.problem || left.length) return (wrong.textContent = found.problem ? t(`string.${found.problem}`, { about: found.about }) : t("review.unplaced", { about: left.join(", ") }), false);
      const tiers = [...found.tiers, found.unusable].filter((tier) => tier.length).map((tier) => tier.map((name) => one.completions[names.indexOf(name)].id));
      try {
        await api("PUT", `/items/${one.id}/gold`, { body: { expected: { tiers: [tiers] }, practice: kind.value === "practice", why: kind.value === "practice" ? why.value.trim() : "" } });
        return true;
      } catch (problem) {
        wrong.textContent = `${problem.message} ${problem.detail}`;
        return false;
      }
    };
    const actionsOf = [{ value: "no", label: t("cancel") }, { value: "go", label: t("review.gold_go"), kind: "first" }];
    const body = [labelled(t("review.for"), kind), said, labelled(t("string.label"), input, t("string.hint")), reason, wrong];
    if ((await dialog({ title: t("review.gold"), body, actions: actionsOf, check })) !== "go") return;
    toast(t(`review.${kind.value}_done`));
    await show(one.id);
  }
});

/* What people agree on as a line, to begin from. */
const agreed = ({ consensus }, letter) => (consensus ? consensus.tiers.map((tier) => tier.map((id) => letter[id]).sort().join(" = ")).join(" > ") : "");
