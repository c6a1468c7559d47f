import { asks, type Layout, mathsPrompt } from "./layout.js";

/** GSM8K (openai/gsm8k, "main"): question, answer with the number after "####". Commas in numbers are no ends of them. */
export const gsm8k: Layout = {
  name: "gsm8k",
  method: "generate",
  maxNewTokens: 1024,
  question: (fields, place) => {
    const question = fields.text("question");
    const answer = fields.text("answer").split("####")[1]?.trim().replaceAll(",", "");
    if (!answer) throw fields.problem(`answer has no "#### number"`);
    return {
      id: `${place.subject}-${place.index}`,
      messages: asks(mathsPrompt(question)),
      answer,
      ask: background(question),
    };
  },
};

/** What text-to-text asks the sharer about a problem. */
export function background(problem: string): string {
  return `Briefly describe the most useful background to solve the problem:\n\n${problem}`;
}
