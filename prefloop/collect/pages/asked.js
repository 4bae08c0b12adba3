// What is asked of this turn and what is still missing: the same rules as answers.py, so that nothing is refused after a submit.
import { unplaced } from "./order.js";

const isMissing = (value) => value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length)
  || (typeof value === "object" && !Object.keys(value).length);

const COMPARISONS = {
  lte: (value, bound) => typeof value === "number" && value <= bound,
  gte: (value, bound) => typeof value === "number" && value >= bound,
  eq: (value, bound) => value === bound,
  has_unusable: (value, bound) => Boolean(value?.unusable?.length) === bound,
};

/* Whether every part of a condition is true of the answers of its stage. */
export function holds(condition, given, tags) {
  return Object.entries(condition ?? {}).every(([name, wanted]) => {
    if (name === "prompt_tag") return tags.includes(wanted);
    if (typeof wanted !== "object") return given[name] === wanted;
    return Object.entries(wanted).every(([kind, bound]) => COMPARISONS[kind](given[name], bound));
  });
}

export const given = (answers, stage, letter) => (letter ? answers[stage.id]?.[letter] : answers[stage.id]) ?? {};

/* What stands between these answers and a submit: [{ stage, letter, question, reason, n }], the first thing first. */
export function missing(schema, answers, letters, tags) {
  const found = [];
  for (const stage of schema.stages) {
    for (const letter of stage.per === "completion" ? letters : [""]) {
      const here = given(answers, stage, letter);
      for (const question of stage.questions) {
        if (!holds(question.show_if, here, tags)) continue;
        const isNeeded = question.required || (Object.keys(question.required_if).length > 0 && holds(question.required_if, here, tags));
        const reason = lacking(question, here[question.id], letters, isNeeded);
        if (reason) found.push({ stage, letter, question, ...reason });
      }
    }
  }
  return found;
}

function lacking(question, value, letters, isNeeded) {
  if (question.type === "rank") {
    const left = value ? unplaced(value, letters) : letters;
    if (left.length === letters.length) return isNeeded ? { reason: "order" } : null;
    return question.complete && left.length ? { reason: "places", n: left.length } : null;
  }
  if (question.type === "pair" && value && !value.choice) return { reason: "answer" };
  if (isMissing(value)) return isNeeded ? { reason: "answer" } : null;
  if (question.type === "number" && (Number.isNaN(value) || (question.min !== null && value < question.min) || (question.max !== null && value > question.max))) {
    return { reason: "range" };
  }
  return (question.type === "text" || question.type === "edit") && [...value].length > question.max ? { reason: "length" } : null;
}

/* The answers as they are sent: nothing empty. */
export function submission(schema, answers) {
  const some = (values) => Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => !isMissing(value)));
  const whole = schema.stages.map((stage) => [stage.id, stage.per === "item" ? some(answers[stage.id])
    : Object.fromEntries(Object.entries(answers[stage.id] ?? {}).map(([letter, one]) => [letter, some(one)]))]);
  return Object.fromEntries(whole);
}
