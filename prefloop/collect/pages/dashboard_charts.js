// Charts as SVG, drawn here: bars over time, values with intervals, a line with a band, a table of shades. Each comes in a figure
// with the same numbers as a table and as CSV, which is also what a screen reader is given.
import { date, el, number, t } from "./base.js";

const WIDE = 640;

/* figure(title, drawing, columns, rows, name): rows hold what columns say; a cell is a string, a number or null. */
export function figure(title, drawing, columns, rows, name, note = "") {
  const table = el("table", { class: "data" }, el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", { class: typeof cell === "number" ? "number" : "" }, shown(cell)))))));
  const save = el("button", { type: "button", class: "button quiet small", onclick: () => download(`${name}.csv`, csv([columns, ...rows])) }, "CSV");
  return el("figure", { class: "sheet chart", "data-chart": name }, el("figcaption", { class: "row" }, el("h3", { class: "grow" }, title), save),
    drawing && el("div", { "aria-hidden": "true" }, drawing), note && el("p", { class: "small soft" }, note),
    drawing ? el("details", {}, el("summary", { class: "small" }, t("chart.table")), el("div", { class: "scroll" }, table)) : el("div", { class: "scroll" }, table));
}

export const shown = (cell) => (cell === null || cell === undefined ? "–" : typeof cell === "number" ? (Number.isInteger(cell) ? number(cell) : rounded(cell)) : cell);
export const rounded = (value) => (value === null || value === undefined ? "–" : value.toFixed(Math.abs(value) >= 10 ? 1 : 2));
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)}%`);

/* A cell no spreadsheet takes for a formula. */
function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(name, text) {
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const drawing = (height, ...parts) => el("svg", { viewBox: `0 0 ${WIDE} ${height}`, class: "drawing", role: "presentation" }, parts);
const label = (x, y, text, attributes = {}) => el("text", { x, y, class: "tick", ...attributes }, text);

/* Bars over time: rows of { at, n }. */
export function bars(rows, height = 170) {
  const top = Math.max(1, ...rows.map(({ n }) => n));
  const [left, bottom] = [40, height - 24];
  const step = (WIDE - left - 8) / Math.max(1, rows.length);
  const scale = (n) => bottom - (n / top) * (bottom - 14);
  const marks = rows.map(({ n }, place) => el("rect", { class: "bar", x: left + place * step + 1, width: Math.max(1, step - 2), y: scale(n), height: Math.max(0, bottom - scale(n)), rx: 1.5 }));
  const every = Math.ceil(rows.length / 6);
  const ticks = rows.map(({ at }, place) => (place % every === 0 ? label(left + place * step, height - 6, short(at)) : null));
  return drawing(height, grid([0, top], scale, left), marks, ticks.filter(Boolean));
}

const short = (ms) => date(ms).replace(/\s?20\d\d年?,?/, "");

function grid(values, scale, left) {
  return values.map((value) => [el("line", { class: "grid", x1: left, x2: WIDE - 8, y1: scale(value), y2: scale(value) }),
    label(left - 6, scale(value) + 4, shown(value), { "text-anchor": "end" })]);
}

/* Values with intervals, one line each: { label, value, low, high, mark } on a common scale. */
export function intervals(rows, [low, high], { middle = null } = {}) {
  const [left, right, line] = [210, 96, 30];
  const height = rows.length * line + 26;
  const scale = (value) => left + ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (WIDE - left - right);
  const ticks = [low, (low + high) / 2, high];
  const parts = rows.map(({ label: name, value, low: from, high: to, mark }, place) => {
    const y = place * line + 18;
    const text = label(left - 12, y + 4, clipped(name, 30), { "text-anchor": "end", class: "name" });
    if (value === null || value === undefined) return [text, label(left + 4, y + 4, "–")];
    return [text,
      from !== null && from !== undefined && to !== null && to !== undefined && el("line", { class: "interval", x1: scale(from), x2: scale(to), y1: y, y2: y }),
      mark !== null && mark !== undefined && el("line", { class: "mark", x1: scale(mark), x2: scale(mark), y1: y - 8, y2: y + 8 }),
      el("circle", { class: "point", cx: scale(value), cy: y, r: 5 }),
      label(WIDE - right + 12, y + 4, rounded(value), { class: "name" })];
  });
  const axis = ticks.map((value) => [el("line", { class: "grid", x1: scale(value), x2: scale(value), y1: 4, y2: height - 20 }), label(scale(value), height - 5, shown(value), { "text-anchor": "middle" })]);
  const zero = middle !== null && el("line", { class: "middle", x1: scale(middle), x2: scale(middle), y1: 4, y2: height - 20 });
  return drawing(height, axis, zero, parts);
}

/* A line with a band over time: rows of { at, value, low, high }; a dashed line at what chance gives. */
export function trend(rows, chance, height = 190) {
  const [left, bottom] = [40, height - 24];
  const known = rows.filter(({ value }) => value !== null);
  const least = Math.floor(10 * Math.max(0, Math.min(0.4, ...known.map(({ low, value }) => low ?? value)))) / 10;
  const scale = (value) => bottom - ((value - least) / (1 - least)) * (bottom - 14);
  const across = (place) => (rows.length > 1 ? left + 14 + (place * (WIDE - left - 40)) / (rows.length - 1) : (left + WIDE) / 2);
  const at = rows.map((row, place) => ({ ...row, x: across(place) })).filter(({ value }) => value !== null);
  const path = at.map(({ x, value }, place) => `${place ? "L" : "M"}${x} ${scale(value)}`).join("");
  const band = at.map(({ x, low, value }, place) => `${place ? "L" : "M"}${x} ${scale(low ?? value)}`).join("") + [...at].reverse().map(({ x, high, value }) => `L${x} ${scale(high ?? value)}`).join("") + "Z";
  const every = Math.ceil(rows.length / 6);
  const ticks = at.map(({ x, at: ms }, place) => (place % every === 0 ? label(x, height - 6, day(ms), { "text-anchor": "middle" }) : null));
  return drawing(height, grid([least, 1], scale, left), at.length > 1 && el("path", { class: "band", d: band }),
    at.length === 1 && el("line", { class: "interval", x1: at[0].x, x2: at[0].x, y1: scale(at[0].low ?? at[0].value), y2: scale(at[0].high ?? at[0].value) }),
    chance !== null && [el("line", { class: "middle", x1: left, x2: WIDE - 8, y1: scale(chance), y2: scale(chance) }), label(left + 6, scale(chance) + 14, t("chart.chance"))],
    el("path", { class: "line", d: path }), at.map(({ x, value }) => el("circle", { class: "point", cx: x, cy: scale(value), r: 4 })), ticks.filter(Boolean));
}

export const day = (ms) => new Intl.DateTimeFormat(document.documentElement.lang, { month: "short", day: "numeric", timeZone: "UTC" }).format(ms);

/* A table of shades: value(row, column) from 0 to 1, or null; text(row, column) stands in the cell. */
export function shades(rows, columns, value, text, { rowTitle = "", columnTitle = "" } = {}) {
  const [left, top, line] = [150, 44, 34];
  const width = Math.min(86, (WIDE - left - 10) / Math.max(1, columns.length));
  const cells = rows.flatMap((_, row) => columns.map((__, column) => {
    const strength = value(row, column);
    const x = left + column * width, y = top + row * line;
    return [el("rect", { class: strength === null ? "none" : "shade", x: x + 1, y: y + 1, width: width - 2, height: line - 2, rx: 4, "fill-opacity": strength === null ? null : 0.06 + 0.84 * strength }),
      label(x + width / 2, y + line / 2 + 4, text(row, column), { "text-anchor": "middle", class: strength !== null && strength > 0.72 ? "on-shade" : "name" })];
  }));
  return drawing(top + rows.length * line + 6, label(left, 14, columnTitle), label(left - 12, top - 10, rowTitle, { "text-anchor": "end" }),
    columns.map((name, column) => label(left + column * width + width / 2, top - 10, clipped(name, Math.floor(width / 7)), { "text-anchor": "middle", class: "name" })),
    rows.map((name, row) => label(left - 12, top + row * line + line / 2 + 4, clipped(name, 20), { "text-anchor": "end", class: "name" })), cells);
}

export const clipped = (text, n) => (text.length > n ? `${text.slice(0, Math.max(1, n - 1))}…` : text);
