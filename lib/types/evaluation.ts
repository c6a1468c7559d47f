// Types of evaluation and audit.
import type { Channel, Message, Timings } from "../types.js";

/**
 * `answer`: what is right: the letter of a choice, a number, a text. `choices`: their texts in order; letters from A on name them.
 * `ask`: what text-to-text asks the sharer, where the default prompt will not do. `accept`: other answers that count as right.
 */
export interface Question {
  readonly id: string;
  readonly group?: string;
  readonly messages: readonly Message[];
  readonly answer: string;
  readonly choices?: readonly string[];
  readonly ask?: string;
  readonly accept?: readonly string[];
}
/** How a text is judged. `predicted`: the answer found in it, null where there is none. `score`: partial credit, 0 to 1. */
export interface Judgement {
  readonly predicted: string | null;
  readonly correct: boolean;
  readonly score?: number;
}
/**
 * Questions and how they are asked. "generate": a greedy answer, in which the choice (or the number) is looked for; "logits": the
 * likeliest letter after "The correct answer is"; "exact": a greedy answer that must equal `answer`. `maxNewTokens` defaults to 64.
 * `judge` replaces the method's own way to judge generated text.
 */
export interface Task {
  readonly name: string;
  readonly questions: Iterable<Question> | AsyncIterable<Question>;
  readonly method: "generate" | "logits" | "exact";
  readonly maxNewTokens?: number;
  /** Replaces the method's own way to judge a generated text. */
  judge?(text: string, question: Question): Judgement;
}
/**
 * How a benchmark's files are asked; defaults are the layout's. `prompt`: "direct" (default), "reasoning" (step by step first) or
 * "plain" (question and choices alone). `where`: only rows whose fields have these values. `templates`: LongBench's prompts by data
 * set, the content of its dataset2prompt.json.
 */
export interface TaskOptions {
  readonly name?: string;
  readonly method?: Task["method"];
  readonly maxNewTokens?: number;
  readonly prompt?: "direct" | "reasoning" | "plain";
  readonly where?: Readonly<Record<string, string | number | boolean>>;
  readonly templates?: Readonly<Record<string, string>>;
}
/** `answers` counts predicted answers, "" where there was none; shares are from 0 to 1, `low` and `high` a 95 % interval. */
export type EvalEvent =
  | {
      readonly type: "answer";
      readonly id: string;
      readonly text: string;
      readonly predicted: string | null;
      readonly correct: boolean;
      readonly score?: number;
      readonly timings: Timings;
    }
  | {
      readonly type: "done";
      readonly accuracy: number;
      readonly low: number;
      readonly high: number;
      readonly n: number;
      readonly byGroup: Readonly<Record<string, number>>;
      readonly answers: Readonly<Record<string, number>>;
      readonly score?: number;
    };
/** `limit`: the first questions only. `batch`: questions in work at once, whose decode steps share batches; default 16. */
export interface EvaluateOptions {
  readonly limit?: number;
  readonly batch?: number;
  readonly signal?: AbortSignal;
}
/** A difference of two shares on the same questions, with its 95 % interval and McNemar's exact p. */
export interface Gain {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly p: number;
}
/**
 * Does anything cross? The same questions with the right sharer cache ("correct"); with another question's ("mismatched": the next
 * question in order, cyclic, whose answer differs and whose sharer rows are as many); with zero keys and values, gates still applied
 * ("zeroed"); with normal noise of the right cache's mean and deviation per layer and part ("noise"); with the receiver as its own
 * sharer where the shapes allow ("self", else null); and by text, where a text channel is given (else null). "sharer" is the sharer
 * alone, the best of them where there are several.
 */
export interface AuditReport {
  readonly n: number;
  readonly accuracy: Readonly<Record<"receiver" | "sharer" | "correct" | "mismatched" | "zeroed" | "noise", number>> & {
    readonly text: number | null;
    readonly self: number | null;
  };
  /** correct − mismatched. */
  readonly contentGain: Gain;
  /** correct − receiver. */
  readonly benefit: Gain;
  /** "harmful": benefit < 0 with p < 0.05; else "content crosses": contentGain > 0 with p < 0.05; else "no detectable content". */
  readonly verdict: "content crosses" | "no detectable content" | "harmful";
}
/** `onProgress` hears of every part ("receiver", "correct", "mismatched", …), from 0 to 1. */
export interface AuditOptions {
  readonly text?: Channel;
  readonly limit?: number;
  readonly batch?: number;
  readonly signal?: AbortSignal;
  /** Hears of every part, from 0 to 1. */
  onProgress?(part: string, done: number): void;
}
