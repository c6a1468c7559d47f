import { type Layout, multipleChoice } from "./layout.js";

const NAMES: readonly string[] = ["A", "B", "C", "D"];

/** C-Eval (ceval/ceval-exam): id, question, A, B, C, D, answer. Rows of its test split have no answers and are not asked. */
export const cEval: Layout = {
  name: "c-eval",
  method: "generate",
  maxNewTokens: 64,
  question: (fields, place) => {
    const key = fields.optional("answer")?.trim();
    if (key === undefined) return null;
    const answer = NAMES.indexOf(key);
    if (answer < 0) throw fields.problem(`answer ${key} is none of A, B, C, D`);
    const id = `${place.subject}-${fields.id("id")}`;
    const choices = NAMES.map((name) => fields.text(name));
    return multipleChoice(fields, place, {
      id,
      group: place.subject,
      question: fields.text("question"),
      choices,
      answer,
    });
  },
};
