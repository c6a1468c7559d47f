import { type Fields, type Layout, multipleChoice, type Place } from "./layout.js";

/**
 * A set of AI2's: an id, a stem (the field `stem`), labelled choices, the right one's label. Some labels are digits, which the
 * reference does not ask; here letters name them like the others.
 */
export function ai2(name: string, stem: string): Layout {
  return {
    name,
    method: "generate",
    maxNewTokens: 64,
    question: (fields: Fields, place: Place) => {
      const { texts, labels } = fields.labelled("choices");
      const key = fields.optional("answerKey")?.trim();
      // The test files of some releases have no keys.
      if (key === undefined) return null;
      const answer = labels.indexOf(key);
      if (answer < 0) throw fields.problem(`answerKey ${key} is none of ${labels.join(", ")}`);
      return multipleChoice(fields, place, {
        id: fields.id("id"),
        question: fields.text(stem),
        choices: texts,
        answer,
      });
    },
  };
}
