// What changed between two texts, word by word (in Chinese, word by word too: the browser knows where words end).
import { el } from "./base.js";

const MOST = 4_000_000; // cells of the table; beyond, whole lines are compared

function pieces(text, isCoarse) {
  if (isCoarse) return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment }) => segment);
}

/* [["same" | "gone" | "new", text], …]: the longest common subsequence of the pieces (Wagner and Fischer 1974). */
export function difference(before, after, isCoarse = false) {
  let [a, b] = [pieces(before, isCoarse), pieces(after, isCoarse)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const head = a.slice(0, start).join("");
  const tail = end ? a.slice(-end).join("") : "";
  [a, b] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  if (a.length * b.length > MOST) {
    return isCoarse ? [["same", head], ["gone", a.join("")], ["new", b.join("")], ["same", tail]] : difference(before, after, true);
  }
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      longest[here] = a[i] === b[j] ? longest[here + width + 1] + 1 : Math.max(longest[here + width], longest[here + 1]);
    }
  }
  const found = [["same", head]];
  const add = (kind, text) => (found.at(-1)[0] === kind ? (found.at(-1)[1] += text) : found.push([kind, text]));
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) [i, j] = (add("same", a[i]), [i + 1, j + 1]);
    else if (j === b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) add("gone", a[i++]);
    else add("new", b[j++]);
  }
  add("same", tail);
  return found.filter(([, text]) => text);
}

const TAG = { same: "span", gone: "del", new: "ins" };
export const drawn = (before, after) => difference(before, after).map(([kind, text]) => el(TAG[kind], {}, text));
