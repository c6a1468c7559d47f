import { C2CError } from "../errors.js";
import { integer, invalid } from "../options.js";
import { wilson } from "../statistics.js";
import type { Channel, EvalEvent, EvaluateOptions, Judgement, Model, Question, Task, Timings } from "../types.js";
import { letters } from "./choices.js";
import { inOrder } from "./in-order.js";
import { judge } from "./judge.js";
import { type Subject, subjectOf } from "./subject.js";

/** New tokens of an answer when the task says nothing else. */
const ANSWER_TOKENS = 64;
const BATCH = 16;
/** What a letter is looked for after, with the method "logits". */
const RESPONSE = "The correct answer is";

/** One question and how it was answered. */
export interface Answered extends Judgement {
  readonly question: Question;
  readonly text: string;
  readonly timings: Timings;
}

/**
 * Puts a task's questions to a model, a channel of caches or a channel by text. Yields one "answer" for each, in the questions'
 * order, then "done" with the accuracy and Wilson's 95 % interval. All answers are greedy, so the same files give the same numbers.
 * OPTION_INVALID for a subject, an option or a question that cannot be asked so; DISPOSED; an abort rejects with `signal.reason`.
 */
export function evaluate(
  subject: Model | Channel,
  task: Task,
  options: EvaluateOptions = {},
): AsyncIterable<EvalEvent> {
  return events(answers(subjectOf(subject), task, options));
}

async function* events(from: AsyncIterable<Answered>): AsyncGenerator<EvalEvent, void> {
  const all: Answered[] = [];
  for await (const answered of from) {
    all.push(answered);
    const { question, text, predicted, correct, score, timings } = answered;
    yield { type: "answer", id: question.id, text, predicted, correct, ...(score !== undefined && { score }), timings };
  }
  yield { type: "done", ...summarise(all.map((answered) => ({ ...answered, group: answered.question.group }))) };
}

/** The numbers of the last event. */
export type Summary = Omit<Extract<EvalEvent, { type: "done" }>, "type">;

/** Sums answers up. `byGroup` holds the accuracy of each group of questions that have one. */
export function summarise(all: readonly (Judgement & { readonly group?: string | undefined })[]): Summary {
  const right = all.filter(({ correct }) => correct).length;
  const groups = new Map<string, { right: number; n: number }>();
  const counts = new Map<string, number>();
  const scores: number[] = [];
  for (const { group, correct, predicted, score } of all) {
    counts.set(predicted ?? "", (counts.get(predicted ?? "") ?? 0) + 1);
    if (score !== undefined) scores.push(score);
    if (group === undefined) continue;
    const sum = groups.get(group) ?? { right: 0, n: 0 };
    groups.set(group, { right: sum.right + (correct ? 1 : 0), n: sum.n + 1 });
  }
  const byName = <T>(map: ReadonlyMap<string, T>): [string, T][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    accuracy: all.length === 0 ? 0 : right / all.length,
    ...wilson(right, all.length),
    n: all.length,
    byGroup: Object.fromEntries(byName(groups).map(([name, sum]) => [name, sum.right / sum.n])),
    answers: Object.fromEntries(byName(counts)),
    ...(scores.length > 0 && { score: scores.reduce((sum, score) => sum + score, 0) / scores.length }),
  };
}

/** Asks a subject, checked: the first `limit` questions, `batch` at once, answers in order. */
export function answers(subject: Subject, task: Task, options: EvaluateOptions = {}): AsyncIterable<Answered> {
  const batch = integer("batch", options.batch ?? BATCH, 1);
  const limit = options.limit === undefined ? Number.POSITIVE_INFINITY : integer("limit", options.limit, 1);
  const maxNewTokens = integer("task.maxNewTokens", task.maxNewTokens ?? ANSWER_TOKENS, 1);
  if (!["generate", "logits", "exact"].includes(task.method)) {
    throw invalid("task.method", `must be generate, logits or exact, is ${String(task.method)}`);
  }
  const ask = async (question: Question, signal: AbortSignal): Promise<Answered> => {
    if (task.method === "logits") return await askLogits(subject, question, signal);
    const { text, timings } = await subject.reply(question, maxNewTokens, signal);
    return { question, text, timings, ...judge(task, text, question) };
  };
  return inOrder(take(task.questions, limit), batch, ask, options.signal);
}

/** The first `limit` items. */
export async function* take<T>(items: Iterable<T> | AsyncIterable<T>, limit: number): AsyncGenerator<T, void> {
  let count = 0;
  if (limit === 0) return;
  for await (const item of items) {
    yield item;
    count += 1;
    if (count >= limit) return;
  }
}

/** The letter whose first token (of " A", " B", …) is the likeliest after the response's beginning. */
async function askLogits(subject: Subject, question: Question, signal: AbortSignal): Promise<Answered> {
  if (!question.choices) throw invalid("question.choices", `question ${question.id} has none: "logits" needs them`);
  const names = letters(question.choices.length);
  const ids: number[] = [];
  for (const name of names) ids.push((await subject.model.encodeText(` ${name}`))[0] ?? -1);
  if (new Set(ids).size < ids.length) {
    const details = { what: `logits of choices with ${subject.model.id}`, supported: ["generate", "exact"] };
    const message = `the tokenizer of ${subject.model.id} begins several letters with the same token: their logits say nothing`;
    throw new C2CError("UNSUPPORTED", details, message);
  }
  const { logits, timings } = await subject.next(question, RESPONSE, signal);
  const best = ids.reduce((top, id, i) => ((logits[id] ?? 0) > (logits[ids[top] ?? 0] ?? 0) ? i : top), 0);
  const predicted = names[best] ?? null;
  return { question, text: predicted ?? "", predicted, correct: predicted === question.answer, timings };
}
