import { channelOrder } from "../channel/connect.js";
import { answers, take } from "../evaluate/evaluate.js";
import { controlled, type Subject, subjectOf } from "../evaluate/subject.js";
import { integer, invalid } from "../options.js";
import type { AuditOptions, AuditReport, Channel, Model, Question, Task } from "../types.js";
import { mismatched, noise, self, selfFits, zeroed } from "./controls.js";
import { partners } from "./mismatch.js";
import { auditReport, type Outcomes, type Part } from "./report.js";

/** Who answers in each part of an audit, and the questions that all of them are asked. */
export interface AuditPlan {
  /** Those with a partner for "mismatched"; `leftOut` had none. */
  readonly questions: readonly Question[];
  readonly leftOut: number;
  /** Several for "sharer" where there are several sharers. */
  readonly subjects: ReadonlyMap<Part, readonly Subject[]>;
}

/**
 * Does anything cross? Puts the task's questions to the receiver and the sharer alone, to the channel, and to the same channel with
 * sharer caches that cannot know the answer, and says what the difference is worth. Everything but the sharers' caches is the same
 * in all of them: prompts, gates, weights, greedy decoding. A question that has no partner for the mismatched cache is left out
 * everywhere; OPTION_INVALID when none has one, for a channel without sharers, for a bad option. DISPOSED; an abort rejects with
 * `signal.reason`.
 */
export async function audit(channel: Channel, task: Task, options: AuditOptions = {}): Promise<AuditReport> {
  const { signal, onProgress, batch } = options;
  const { questions, subjects } = await planAudit(channel, task, options);
  const outcomes = new Map<Part, readonly boolean[]>();
  for (const [part, several] of subjects) {
    let best: readonly boolean[] = [];
    let done = 0;
    for (const subject of several) {
      const right: boolean[] = [];
      for await (const { correct } of answers(
        subject,
        { ...task, questions },
        { ...(batch && { batch }), ...(signal && { signal }) },
      )) {
        right.push(correct);
        done += 1;
        onProgress?.(part, done / (questions.length * several.length));
      }
      if (best.length === 0 || count(right) > count(best)) best = right;
    }
    outcomes.set(part, best);
  }
  return reportOf(outcomes);
}

/** The report of what each part answered. */
export function reportOf(outcomes: ReadonlyMap<Part, readonly boolean[]>): AuditReport {
  const of = (part: Part): readonly boolean[] => outcomes.get(part) ?? [];
  const all: Outcomes = {
    receiver: of("receiver"),
    sharer: of("sharer"),
    correct: of("correct"),
    mismatched: of("mismatched"),
    zeroed: of("zeroed"),
    noise: of("noise"),
    self: outcomes.get("self") ?? null,
    text: outcomes.get("text") ?? null,
  };
  return auditReport(all);
}

/** Reads the questions, pairs them, and makes every part's subjects. */
export async function planAudit(channel: Channel, task: Task, options: AuditOptions = {}): Promise<AuditPlan> {
  if (channelOrder(channel) === undefined || channel.links.length === 0) {
    throw invalid("channel", "must be a channel made by `connect` with a sharer or more");
  }
  const limit = options.limit === undefined ? Number.POSITIVE_INFINITY : integer("limit", options.limit, 1);
  const all: Question[] = [];
  for await (const question of take(task.questions, limit)) all.push(question);
  options.signal?.throwIfAborted();
  const paired = await partners(channel, all);
  const questions = all.filter((question) => paired.has(question));
  if (questions.length === 0) {
    throw invalid(
      "task.questions",
      "no two of them have different answers and as many sharer rows: nothing to mismatch",
    );
  }
  const sharers = new Set<Model>(channel.links.map(({ sharer }) => sharer));
  const subjects = new Map<Part, readonly Subject[]>([
    ["receiver", [subjectOf(channel.receiver)]],
    ["sharer", [...sharers].map(subjectOf)],
    ["correct", [subjectOf(channel)]],
    ["mismatched", [controlled(channel, mismatched(channel, paired))]],
    ["zeroed", [controlled(channel, zeroed)]],
    ["noise", [controlled(channel, noise)]],
  ]);
  if (selfFits(channel)) subjects.set("self", [controlled(channel, self(channel))]);
  if (options.text) subjects.set("text", [subjectOf(options.text)]);
  return { questions, leftOut: all.length - questions.length, subjects };
}

function count(outcomes: readonly boolean[]): number {
  return outcomes.filter(Boolean).length;
}
