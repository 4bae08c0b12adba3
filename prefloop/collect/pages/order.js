// An order of answers, and everything that can be done to one: { tiers: [["b"], ["a", "c"]], unusable: ["d"] }, best first.
// Pure: every function returns a new order. The line "b > a = c | d" is read and written as rank_string.py does it.

export const LETTERS = "abcdefghijklmnop";
export const nothing = () => ({ tiers: [], unusable: [] });

const removed = (order, id) => ({
  tiers: order.tiers.map((tier) => tier.filter((one) => one !== id)),
  unusable: order.unusable.filter((one) => one !== id),
});
const packed = (order) => ({ tiers: order.tiers.filter((tier) => tier.length).map((tier) => [...tier].sort()), unusable: [...order.unusable].sort() });

export const tierOf = (order, id) => order.tiers.findIndex((tier) => tier.includes(id));
export const isPlaced = (order, id) => tierOf(order, id) >= 0 || order.unusable.includes(id);
export const unplaced = (order, ids) => ids.filter((id) => !isPlaced(order, id));
export const toTray = (order, id) => packed(removed(order, id));

/* Into the tier that stands at a place, or a tier of its own before that place; places are those of the order as given. */
export function tiedAt(order, id, place) {
  const left = removed(order, id);
  left.tiers[place].push(id);
  return packed(left);
}
export function insertedAt(order, id, place) {
  const left = removed(order, id);
  left.tiers.splice(place, 0, [id]);
  return packed(left);
}
export const last = (order, id) => insertedAt(order, id, order.tiers.length);

export function unusable(order, id) {
  const left = removed(order, id);
  left.unusable.push(id);
  return packed(left);
}
export const toggledUnusable = (order, id) => (order.unusable.includes(id) ? toTray(order, id) : unusable(order, id));

export function better(order, id) {
  const place = tierOf(order, id);
  if (place < 0) return order.unusable.includes(id) ? last(order, id) : insertedAt(order, id, 0);
  if (order.tiers[place].length > 1) return insertedAt(order, id, place);
  return place ? insertedAt(order, id, place - 1) : order;
}
export function worse(order, id) {
  const place = tierOf(order, id);
  if (place < 0) return last(order, id);
  if (order.tiers[place].length > 1) return insertedAt(order, id, place + 1);
  return place < order.tiers.length - 1 ? insertedAt(order, id, place + 2) : order;
}
export function tiedAbove(order, id) {
  const place = tierOf(order, id);
  if (place < 0) return order.tiers.length ? tiedAt(order, id, order.tiers.length - 1) : last(order, id);
  return place ? tiedAt(order, id, place - 1) : order;
}
export function split(order, id) {
  const place = tierOf(order, id);
  return place >= 0 && order.tiers[place].length > 1 ? insertedAt(order, id, place + 1) : order;
}

export function written({ tiers, unusable: thrown }) {
  const ranked = tiers.map((tier) => [...tier].sort().join(" = ")).join(" > ");
  return thrown.length ? `${ranked} | ${[...thrown].sort().join(" ")}`.trim() : ranked;
}

const NAME = "x?\\s*(?:[a-p]|[1-9])";
const TIER = `${NAME}(?:\\s*[=＝]\\s*${NAME})*`;
const LINE = new RegExp(`^\\s*(${TIER}(?:[\\s>,，、＞]+${TIER})*)?\\s*(?:[|｜]\\s*(${NAME}(?:[\\s=,]+${NAME})*)?)?\\s*$`, "i");
const all = (pattern, text) => text.match(new RegExp(pattern, "gi")) ?? [];
const letter = (typed) => (/\d$/.test(typed) ? LETTERS[Number(typed.at(-1)) - 1] : typed.at(-1).toLowerCase());

/* The order a line says, or { problem, … } where it says none: a key under "string." and what it is about. */
export function parse(line, ids) {
  const found = line.length <= 200 && LINE.exec(line);
  if (!found) return { problem: "unclear" };
  const order = nothing();
  order.unusable.push(...all(NAME, found[2] ?? "").map(letter));
  for (const tier of all(TIER, found[1] ?? "")) {
    const names = all(NAME, tier);
    order.unusable.push(...names.filter((one) => /^x/i.test(one)).map(letter));
    order.tiers.push(names.filter((one) => !/^x/i.test(one)).map(letter));
  }
  const placed = [...order.tiers.flat(), ...order.unusable];
  const stranger = placed.find((one) => !ids.includes(one));
  if (stranger) return { problem: "stranger", about: stranger };
  const twice = placed.find((one, place) => placed.indexOf(one) !== place);
  return twice ? { problem: "twice", about: twice } : packed(order);
}
