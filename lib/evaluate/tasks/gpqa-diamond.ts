import { createHash } from "node:crypto";
import { type Fields, type Layout, multipleChoice } from "./layout.js";
import { pythonShuffle } from "./python-shuffle.js";

const WRONG = ["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"] as const;

/**
 * GPQA Diamond (Idavidrein/gpqa, gpqa_diamond): Question, Correct Answer, Incorrect Answer 1 to 3, each with an "Extra Revised" form
 * that goes first where it is given. The choices are put in the reference's order, which depends on their text alone.
 */
export const gpqaDiamond: Layout = {
  name: "gpqa-diamond",
  method: "generate",
  maxNewTokens: 64,
  question: (fields, place) => {
    const question = revised(fields, "Question");
    const all = [revised(fields, "Correct Answer"), ...WRONG.map((name) => revised(fields, name))];
    const digest = createHash("md5")
      .update([question, ...all].join("||"))
      .digest();
    const order = pythonShuffle(all.length, digest.readUInt32BE(12));
    const choices = order.map((at) => all[at] ?? "");
    const group = fields.optional("High-level domain");
    return multipleChoice(fields, place, {
      id: fields.optional("Record ID") ?? `gpqa-${place.index}`,
      ...(group !== null && { group }),
      question,
      choices,
      answer: order.indexOf(0),
    });
  },
};

function revised(fields: Fields, name: string): string {
  return fields.optional(`Extra Revised ${name}`) ?? fields.text(name);
}
