import type { Judgement, Question, Task } from "../types.js";
import { extractChoice } from "./choices.js";
import { judgeMaths } from "./maths.js";

/** Judges generated text: by the task's own `judge`, else by its method. */
export function judge(task: Task, text: string, question: Question): Judgement {
  if (task.judge) return task.judge(text, question);
  if (task.method === "exact") return judgeExact(text, question);
  return question.choices ? judgeChoice(text, question) : judgeMaths(text, question);
}

/** The text must be the answer, but for white space around it and one full stop at its end. */
function judgeExact(text: string, question: Question): Judgement {
  const predicted = text.trim().replace(/\.$/, "");
  return { predicted, correct: [question.answer, ...(question.accept ?? [])].includes(predicted) };
}

/** The letter that the text names must be the answer's. */
function judgeChoice(text: string, question: Question): Judgement {
  const predicted = extractChoice(text, question.choices?.length ?? 4);
  return { predicted, correct: predicted === question.answer };
}

/**
 * Answers in free words: right when one of the accepted answers is in the text, word for word (case, punctuation and English
 * articles aside). `score` is the best F1 of the words in common, as LongBench counts question answering; Chinese counts by
 * character.
 */
export function judgeWords(text: string, question: Question): Judgement {
  const said = words(text);
  const right = [question.answer, ...(question.accept ?? [])].map(words);
  return {
    predicted: text.trim() === "" ? null : text.trim(),
    correct: right.some((answer) => answer.length > 0 && ` ${said.join(" ")} `.includes(` ${answer.join(" ")} `)),
    score: Math.max(0, ...right.map((answer) => f1(said, answer))),
  };
}

function words(text: string): readonly string[] {
  return text
    .toLowerCase()
    .replace(/(\p{Script=Han})/gu, " $1 ")
    .replace(/[\p{P}\p{S}]/gu, "")
    .split(/\s+/)
    .filter((word) => word !== "" && !["a", "an", "the"].includes(word));
}

function f1(said: readonly string[], right: readonly string[]): number {
  const left = new Map<string, number>();
  for (const word of right) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of said) {
    const count = left.get(word) ?? 0;
    if (count > 0) {
      common += 1;
      left.set(word, count - 1);
    }
  }
  return common === 0 ? 0 : (2 * common) / (said.length + right.length);
}
