import { type Layout, multipleChoice } from "./layout.js";

/** MMLU-Pro (TIGER-Lab/MMLU-Pro): question_id, question, options (up to ten), answer_index, category. */
export const mmluPro: Layout = {
  name: "mmlu-pro",
  method: "generate",
  maxNewTokens: 64,
  question: (fields, place) => {
    const choices = fields.list("options");
    const group = fields.optional("category") ?? place.subject;
    const answer = fields.index("answer_index", choices.length);
    return multipleChoice(fields, place, {
      id: fields.id("question_id"),
      group,
      question: fields.text("question"),
      choices,
      answer,
    });
  },
};
