import { MOST_CHOICES } from "../choices.js";
import { asks, type Fields, type Layout, multipleChoice } from "./layout.js";

/**
 * Plain questions, one's own: id, question, answer, and where wanted group (or who), choices, ask, accept. With choices, `answer` is
 * a letter and the prompt is that of the benchmarks; without, the question is asked as it is.
 */
export const plainQuestions: Layout = {
  name: "questions",
  method: "exact",
  maxNewTokens: 32,
  question: (fields, place) => {
    const question = fields.text("question");
    const answer = fields.text("answer");
    const group = fields.optional("group") ?? fields.optional("who");
    const ask = fields.optional("ask");
    const rest = { id: fields.id("id"), ...(group !== null && { group }), ...(ask !== null && { ask }) };
    const accept = "accept" in fields.row ? { accept: fields.list("accept") } : {};
    if (!("choices" in fields.row)) return { ...rest, messages: asks(question), answer, ...accept };
    const choices = fields.list("choices");
    return {
      ...multipleChoice(fields, place, { ...rest, question, choices, answer: letterIndex(fields, choices) }),
      ...rest,
    };
  },
};

function letterIndex(fields: Fields, choices: readonly string[]): number {
  const answer = fields.text("answer");
  const index = "ABCDEFGHIJ".indexOf(answer);
  if (answer.length !== 1 || index < 0 || index >= Math.min(choices.length, MOST_CHOICES)) {
    throw fields.problem(`answer ${JSON.stringify(answer)} is no letter of ${choices.length} choices`);
  }
  return index;
}
