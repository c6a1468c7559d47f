import { type Fields, type Layout, multipleChoice } from "./layout.js";

/**
 * MMLU-Redux 2.0 (edinburgh-dawg/mmlu-redux-2.0): question, choices, answer (an index), error_type, correct_answer. As in the
 * reference, rows without a right answer and those that experts must look at are not asked, and a wrong key is corrected.
 */
export const mmluRedux: Layout = {
  name: "mmlu-redux",
  method: "generate",
  maxNewTokens: 64,
  question: (fields, place) => {
    const error = fields.optional("error_type");
    if (error === "no_correct_answer" || error === "expert") return null;
    const choices = fields.list("choices");
    const corrected = error === "wrong_groundtruth" ? correction(fields, choices) : null;
    const answer = corrected ?? fields.index("answer", choices.length);
    const id = `${place.subject}-${place.index}`;
    return multipleChoice(fields, place, {
      id,
      group: place.subject,
      question: fields.text("question"),
      choices,
      answer,
    });
  },
};

/** The annotators' answer: an index, a letter or a choice's text; null where it is none of them. */
function correction(fields: Fields, choices: readonly string[]): number | null {
  const given = fields.optional("correct_answer")?.trim();
  if (given === undefined) return null;
  const index = /^\d$/.test(given)
    ? Number(given)
    : /^[A-J]$/.test(given)
      ? given.charCodeAt(0) - 65
      : choices.indexOf(given);
  return index >= 0 && index < choices.length ? index : null;
}
