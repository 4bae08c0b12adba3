// How a project is doing: progress, agreement, annotators, bias, sources, reports, exports. Every chart has its table and its CSV.
import { api, date, el, fill, labelled, number, page, t, toast, words } from "./base.js";
import { bars, day, figure, intervals, percent, rounded, shades, trend } from "./dashboard_charts.js";
import { cancelling, finished, frame, path } from "./project_frame.js";

const FORMATS = ["kway", "trl_preference", "rm_group", "kto", "sft", "openrlhf", "stepwise", "argilla", "labelstudio", "answers", "csv", "parquet", "audit"];

page({ title: "view.dashboard", isWide: true }, async ({ main, place }) => {
  const slug = place.project;
  const { project, head, mayManage } = await frame(slug, "dashboard");
  const ask = (name) => api("GET", path(slug, name), { timeout: 120_000 });
  const body = el("div", { class: "panels" });
  main.append(el("div", { class: "dashboard" }, head, body));
  const sections = Object.fromEntries(["tiles", "time", "agreement", "annotators", "bias", "sources", "questions", "files"].map((name) => [name, el("section", { class: name, "data-section": name })]));
  fill(body, Object.values(sections));
  const panel = async (sources, draw) => draw(...(await Promise.all(sources.map(ask))));
  await Promise.all([
    panel(["/stats", "/timeline", "/agreement"], (stats, timeline, agreement) => {
      fill(sections.tiles, tiles(stats, timeline, agreement));
      fill(sections.time, throughput(timeline), overTime(agreement));
      fill(sections.agreement, measures(agreement), who(agreement));
      fill(sections.questions, questions(agreement));
    }),
    panel(["/annotators"], (found) => fill(sections.annotators, annotators(found.annotators))),
    panel(["/bias"], (found) => {
      fill(sections.bias, position(found.position), tendencies(found));
      fill(sections.sources, board(found.sources));
    }),
    mayManage ? files(slug, sections.files) : null,
  ]);
  body.dataset.state = "drawn";
  return project;
});

// --- the top ---------------------------------------------------------------------------------------------------------------

function tiles({ progress }, timeline, agreement) {
  const share = progress.wanted ? progress.done / progress.wanted : 0;
  const half = agreement.pairs.half;
  const bar = el("span", {});
  bar.style.width = `${100 * share}%`;
  const hours = timeline.hours_left;
  const eta = timeline.left === 0 ? t("dash.all_done") : hours === null ? t("dash.no_pace") : t("dash.hours_left", { n: hours < 10 ? hours.toFixed(1) : Math.round(hours) });
  const between = ({ low, high }) => (low === null ? "" : `${percent(low)} – ${percent(high)}`);
  return [
    tile("progress", t("dash.progress"), percent(share), el("div", { class: "progress" }, bar), t("dash.done_of", { done: number(progress.done), wanted: number(progress.wanted), items: number(progress.items) })),
    tile("pace", t("dash.pace"), timeline.per_hour === null ? "–" : t("dash.per_hour", { n: timeline.per_hour.toFixed(1) }), null, eta),
    tile("agreement", t("dash.agreement"), percent(half.by_items.value), null, half.by_items.value === null ? reason(half.by_items.reason) : t("dash.interval_chance", { interval: between(half.by_items), chance: percent(half.chance) })),
    tile("alpha", t("dash.alpha"), rounded(agreement.preference_alpha.value), null, agreement.preference_alpha.value === null ? reason(agreement.preference_alpha.reason) : t("dash.interval", { interval: `${rounded(agreement.preference_alpha.low)} – ${rounded(agreement.preference_alpha.high)}` })),
    tile("queue", t("dash.queue"), number(timeline.slots.open ?? 0), null, t("dash.queue_rest", { leased: number(timeline.slots.leased ?? 0), expired: number(timeline.slots.expired), held: number(timeline.slots.hold ?? 0), surplus: number(progress.surplus) })),
  ];
}

const tile = (name, title, value, more, note) => el("div", { class: "sheet tile", "data-tile": name }, el("h2", {}, title), el("p", { class: "value" }, value), more, el("p", { class: "small soft" }, note));

/* Why a number is missing, in the page's language where it is one of those known. */
const REASONS = [[/two people|judged twice|put in order|second|nobody else/, "few"], [/same answer|same point/, "alike"], [/equally often/, "uneven"], [/no two people/, "no_team"], [/one item/, "one"],
  [/decides every pair/, "decides"], [/differs? in it/, "no_difference"], [/fewer than two named|two sources/, "no_sources"], [/twice/, "few"], [/fewer than five/, "thin"], [/rows or columns/, "few"]];
function reason(said) {
  const found = REASONS.find(([pattern]) => pattern.test(said));
  return found ? t(`why.${found[1]}`) : said;
}

function throughput({ hours }) {
  const rows = hours.map(({ hour, n }) => ({ at: hour, n }));
  return figure(t("dash.throughput"), bars(rows), [t("dash.hour"), t("dash.judgments")], rows.map(({ at, n }) => [date(at), n]), "throughput");
}

function overTime({ trend: rows, pairs }) {
  const points = rows.map((row) => ({ ...row, at: row.day * 86_400_000 }));
  return figure(t("dash.trend"), points.length ? trend(points, pairs.half.chance) : null, [t("dash.day"), t("dash.value"), t("dash.low"), t("dash.high"), t("dash.items")],
    points.map(({ at, value, low, high, n }) => [day(at), value, low, high, n]), "agreement_trend", points.length ? "" : t("why.few"));
}

// --- agreement ---------------------------------------------------------------------------------------------------------------

function measures(found) {
  const rows = [
    ...["half", "drop", "strict"].map((ties) => ({ label: t(`dash.pairs_${ties}`), ...found.pairs[ties].by_items, mark: found.pairs[ties].chance })),
    { label: t("dash.pairs_micro"), ...found.pairs.half.by_pairs, mark: found.pairs.half.chance },
    { label: t("dash.alpha_long"), ...found.preference_alpha },
    { label: t("dash.w"), ...found.kendall_w },
  ];
  return measured(t("dash.measures"), rows, "agreement", t("dash.measures_note", { items: number(found.items), judgments: number(found.judgments) }));
}

function measured(title, rows, name, note) {
  const low = Math.min(0, ...rows.map((row) => Math.max(-1, row.low ?? row.value ?? 0)));
  return figure(title, intervals(rows, [low < 0 ? -1 : 0, 1], { middle: low < 0 ? 0 : null }), [t("dash.measure"), t("dash.value"), t("dash.low"), t("dash.high"), "n", t("dash.chance"), t("dash.note")],
    rows.map((row) => [row.label, row.value ?? row.mean ?? null, row.low, row.high, row.n, row.mark ?? null, row.reason ? reason(row.reason) : ""]), name, note);
}

const KINDS = ["alpha_ordinal", "alpha_interval", "alpha_nominal", "icc_2k", "fleiss", "gwet_ac1"];
function questions({ questions: asked }) {
  if (!asked.length) return null;
  const columns = [t("dash.question"), ...KINDS.map((kind) => t(`dash.${kind}`)), t("dash.note")];
  const rows = asked.map((one) => {
    const given = KINDS.map((kind) => one[kind]);
    const why = given.find((cell) => cell && cell.value === null)?.reason;
    return [words(one.label, one.question), ...given.map((cell) => (cell && cell.value !== null ? `${rounded(cell.value)} (${rounded(cell.low)} – ${rounded(cell.high)})` : null)), why ? reason(why) : ""];
  });
  return figure(t("dash.questions"), null, columns, rows, "questions");
}

function who({ matrix }) {
  const names = matrix.annotators;
  if (names.length < 2) return null;
  const cell = new Map(matrix.cells.flatMap((one) => [[`${one.a} ${one.b}`, one], [`${one.b} ${one.a}`, one]]));
  const at = (row, column) => cell.get(`${names[row]} ${names[column]}`);
  const drawing = shades(names.map(brief), names.map(brief), (row, column) => at(row, column)?.agreement ?? null, (row, column) => (row === column ? "" : percent(at(row, column)?.agreement)));
  const rows = matrix.cells.map(({ a, b, agreement, kappa, items }) => [brief(a), brief(b), agreement, kappa.value, kappa.low, kappa.high, items]);
  return figure(t("dash.matrix"), drawing, [t("dash.one"), t("dash.other"), t("dash.pairs_half"), t("dash.kappa"), t("dash.low"), t("dash.high"), t("dash.items")], rows, "annotator_matrix");
}

const ending = (text, n) => (text.length > n ? `…${text.slice(1 - n)}` : text);
export const brief = (name) => name.replace(/^human:(.{6}).*$/, "$1");

// --- annotators --------------------------------------------------------------------------------------------------------------

function annotators(rows) {
  if (!rows.length) return el("div", { class: "sheet" }, el("h3", {}, t("dash.annotators")), el("p", { class: "soft" }, t("why.nothing")));
  const share = ({ mean, value, low, high, n }) => ((mean ?? value) === null || (mean ?? value) === undefined || n === 0 ? null : `${percent(mean ?? value)} (${percent(low)} – ${percent(high)})`);
  const slope = ({ value, low, high }) => (value === null ? null : `${rounded(value)} (${rounded(low)} – ${rounded(high)})`);
  const columns = ["annotator", "n", "time", "too_fast", "gold", "with_others", "first", "length", "straight", "consistency"].map((name) => t(`dash.col_${name}`));
  const table = rows.map((one) => [brief(one.annotator), one.n, one.median_ms === null ? null : `${(one.median_ms / 1000).toFixed(1)} s`, share(one.too_fast), share(one.gold), share(one.with_others),
    share(one.first), slope(one.length_slope), share(one.straight), share(one.consistency)]);
  const drawing = intervals(rows.slice(0, 14).map((one) => ({ label: brief(one.annotator), value: one.with_others.value, low: one.with_others.low, high: one.with_others.high })), [0, 1]);
  const first = intervals(rows.slice(0, 14).map((one) => ({ label: brief(one.annotator), value: one.first.n ? one.first.mean : null, low: one.first.low, high: one.first.high, mark: one.first.chance })), [0, 1]);
  return [figure(t("dash.annotators"), null, columns, table, "annotators", t("dash.annotators_note")),
    figure(t("dash.first"), first, [t("dash.col_annotator"), t("dash.value"), t("dash.low"), t("dash.high"), t("dash.chance"), "n"],
      rows.map(({ annotator, first: { mean, low, high, chance, n } }) => [brief(annotator), mean, low, high, chance, n]), "first_place"),
    figure(t("dash.with_others"), drawing, [t("dash.col_annotator"), t("dash.value"), t("dash.low"), t("dash.high"), "n"],
      rows.map(({ annotator, with_others: { value, low, high, n } }) => [brief(annotator), value, low, high, n]), "with_others")];
}

// --- what wins for another reason ----------------------------------------------------------------------------------------------

function position({ k, judgments, table, chi_square: test }) {
  if (!k) return figure(t("dash.position"), null, [t("dash.note")], [], "position", t("why.nothing"));
  const tiers = table.map((_, place) => t("dash.tier", { n: place + 1 }));
  const stood = table.map((_, place) => t("dash.stood", { name: String.fromCharCode(97 + place) }));
  const total = table.map((row) => row.reduce((sum, n) => sum + n, 0));
  const drawing = shades(stood, tiers, (row, column) => (total[row] ? table[row][column] / total[row] : 0), (row, column) => percent(total[row] ? table[row][column] / total[row] : 0));
  const note = test.p === null ? reason(test.reason) : `${t("dash.chi_square", { x: rounded(test.statistic), df: test.df, p: test.p < 0.001 ? "< 0.001" : `= ${test.p.toFixed(3)}`, n: number(judgments) })} ${test.reason ? reason(test.reason) : ""}`;
  return figure(t("dash.position"), drawing, ["", ...tiers], table.map((row, place) => [stood[place], ...row]), "position", note);
}

function tendencies({ length, markdown }) {
  const rows = [{ label: t("dash.longer"), ...length.longer_wins, mark: 0.5 }, { label: t("dash.markdown"), ...markdown, mark: 0.5 }];
  const slope = length.slope.value === null ? reason(length.slope.reason) : t("dash.slope", { value: rounded(length.slope.value), interval: `${rounded(length.slope.low)} – ${rounded(length.slope.high)}` });
  return measured(t("dash.tendencies"), rows, "tendencies", slope);
}

function board({ names, board: rows, wins, ties, reason: why }) {
  if (!rows.length) return figure(t("dash.sources"), null, [t("dash.note")], [], "sources", reason(why));
  const reach = Math.max(1, ...rows.flatMap(({ low, high }) => [Math.abs(low), Math.abs(high)]));
  const drawing = intervals(rows.map(({ source, strength, low, high }) => ({ label: source, value: strength, low, high })), [-reach, reach], { middle: 0 });
  const table = rows.map(({ source, strength, low, high, n }) => [source, strength, low, high, n]);
  const share = (row, column) => wins[row][column] + wins[column][row] + ties[row][column];
  const won = shades(names.map((name) => ending(name, 16)), names.map((name) => ending(name, 11)), (row, column) => (share(row, column) ? (wins[row][column] + ties[row][column] / 2) / share(row, column) : null),
    (row, column) => (row === column ? "" : share(row, column) ? percent((wins[row][column] + ties[row][column] / 2) / share(row, column)) : "–"), { rowTitle: t("dash.beats") });
  return [figure(t("dash.sources"), drawing, [t("dash.source"), t("dash.strength"), t("dash.low"), t("dash.high"), t("dash.pairs")], table, "sources", t("dash.sources_note")),
    figure(t("dash.wins"), won, [t("dash.source"), ...names], names.map((name, row) => [name, ...wins[row]]), "wins")];
}

// --- reports, exports, what happened ---------------------------------------------------------------------------------------------

async function files(slug, section) {
  const [{ reports }, { jobs }, { events }] = await Promise.all([api("GET", path(slug, "/reports")), api("GET", path(slug, "/jobs")), api("GET", path(slug, "/events"))]);
  const chosen = el("select", { class: "input" }, FORMATS.map((name) => el("option", { value: name }, name)));
  const list = el("div", { class: "stack" });
  const line = (job) => el("div", { class: "row small", "data-job": job.id }, el("span", {}, date(job.created)), job.state === "done"
    ? Object.keys(job.result.files ?? {}).map((name) => el("a", { href: `/api/v1/jobs/${job.id}/files/${encodeURIComponent(name)}`, download: name }, name))
    : [el("span", { class: job.state === "failed" ? "wrong" : "soft" }, job.result.error ?? t("dash.running")), ["waiting", "running"].includes(job.state) && cancelling(job.id)]);
  const show = (job) => {
    const before = list.querySelector(`[data-job="${job.id}"]`);
    return before ? before.replaceWith(line(job)) : list.prepend(line(job));
  };
  const follow = async (job) => {
    show(job);
    if (["waiting", "running"].includes(job.state)) show(await finished(job.id));
  };
  [...jobs].reverse().filter(({ kind }) => kind === "export").slice(-12).forEach(follow);
  const begin = async () => {
    const { job } = await api("POST", path(slug, "/exports"), { body: { format: chosen.value } });
    toast(t("dash.export_begun"));
    await follow(await api("GET", `/jobs/${job}`));
  };
  const exporting = el("div", { class: "sheet stack", "data-box": "exports" }, el("h3", {}, t("dash.exports")), el("div", { class: "row" }, labelled(t("dash.format"), chosen), el("button", { type: "button", class: "button", onclick: begin }, t("dash.export"))), list);
  const open = reports.filter(({ state }) => state === "open");
  const dismiss = async (one, row) => {
    await api("PATCH", `/reports/${one.id}`, { body: { state: "dismissed" } });
    row.remove();
  };
  const rows = open.slice(0, 20).map((one) => {
    const row = el("li", { class: "row small" }, el("span", { class: "tag warn" }, one.reason), el("span", { class: "grow" }, one.text), el("a", { href: path(slug, `/review?item=${one.item}`) }, t("dash.look")),
      el("button", { type: "button", class: "button quiet", onclick: () => dismiss(one, row) }, t("dash.dismiss")));
    return row;
  });
  const reported = el("div", { class: "sheet stack" }, el("h3", {}, t("dash.reports", { n: open.length })), open.length ? el("ul", { class: "plain stack" }, rows) : el("p", { class: "soft small" }, t("dash.no_reports")));
  const log = figure(t("dash.log"), null, [t("dash.when"), t("dash.what"), ""], events.slice(0, 12).map(({ created, action, detail }) => [date(created), action, Object.values(detail).join(" ").slice(0, 80)]), "log");
  fill(section, exporting, reported, log);
}
