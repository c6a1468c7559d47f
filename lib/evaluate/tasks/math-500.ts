import { background } from "./gsm8k.js";
import { asks, type Layout, mathsPrompt } from "./layout.js";

/** MATH-500 (HuggingFaceH4/MATH-500): problem, answer, subject, level, unique_id. */
export const math500: Layout = {
  name: "math-500",
  method: "generate",
  maxNewTokens: 1024,
  question: (fields, place) => {
    const problem = fields.text("problem");
    return {
      id: fields.id("unique_id"),
      group: fields.optional("subject") ?? place.subject,
      messages: asks(mathsPrompt(problem)),
      answer: fields.text("answer").trim(),
      ask: background(problem),
    };
  },
};
