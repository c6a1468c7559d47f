// Types of evaluation and audit.
import type { Channel, Message, Timings } from "../types.js";

/** One question of a task. */
export interface Question {
  /** Unique in its task. */
  readonly id: string;
  /** What `byGroup` counts by, e.g. a subject. */
  readonly group?: string;
  /** What is asked. */
  readonly messages: readonly Message[];
  /** What is right: the letter of a choice, a number, a text. */
  readonly answer: string;
  /** Their texts in order; letters from A on name them. */
  readonly choices?: readonly string[];
  /** What text-to-text asks the sharer, where the default prompt will not do. */
  readonly ask?: string;
  /** Other answers that count as right. */
  readonly accept?: readonly string[];
}
/** How a text is judged. */
export interface Judgement {
  /** The answer found in the text, null where there is none. */
  readonly predicted: string | null;
  /** It is right. */
  readonly correct: boolean;
  /** Partial credit, 0 to 1. */
  readonly score?: number;
}
/** Questions and how they are asked. */
export interface Task {
  /** For people. */
  readonly name: string;
  /** In the order in which they are asked. */
  readonly questions: Iterable<Question> | AsyncIterable<Question>;
  /** "generate": a greedy answer, in which the choice (or the number) is looked for; "logits": the likeliest letter after "The correct answer is"; "exact": a greedy answer that must equal `answer`. */
  readonly method: "generate" | "logits" | "exact";
  /** Length limit of an answer; default 64. */
  readonly maxNewTokens?: number;
  /** Replaces the method's own way to judge a generated text. */
  judge?(text: string, question: Question): Judgement;
}
/** How a benchmark's files are asked; defaults are the layout's. */
export interface TaskOptions {
  /** Default: the layout's name. */
  readonly name?: string;
  /** As in `Task`; default: the layout's. */
  readonly method?: Task["method"];
  /** Default: the layout's. */
  readonly maxNewTokens?: number;
  /** "direct" (default), "reasoning" (step by step first) or "plain" (question and choices alone). */
  readonly prompt?: "direct" | "reasoning" | "plain";
  /** Only rows whose fields have these values. */
  readonly where?: Readonly<Record<string, string | number | boolean>>;
  /** LongBench's prompts by data set, the content of its dataset2prompt.json. */
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
/** How many questions are asked, and how. */
export interface EvaluateOptions {
  /** The first questions only; default: all. */
  readonly limit?: number;
  /** Questions in work at once, whose decode steps share batches; default 16. */
  readonly batch?: number;
  /** Raised: the iterator throws its reason. */
  readonly signal?: AbortSignal;
}
/** A difference of two shares on the same questions, with its 95 % interval and McNemar's exact p. */
export interface Gain {
  /** The difference, −1 to 1. */
  readonly value: number;
  /** Lower end of its 95 % interval. */
  readonly low: number;
  /** Upper end. */
  readonly high: number;
  /** McNemar's exact p, two-sided. */
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
  /** Questions that every part was asked. */
  readonly n: number;
  /** Share of right answers of each part, 0 to 1. */
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
/** How a channel is audited. */
export interface AuditOptions {
  /** A channel by text between the same models, for "text". */
  readonly text?: Channel;
  /** The first questions only; default: all. */
  readonly limit?: number;
  /** Questions in work at once; default 16. */
  readonly batch?: number;
  /** Raised: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Hears of every part ("receiver", "correct", "mismatched", …), from 0 to 1. */
  onProgress?(part: string, done: number): void;
}
