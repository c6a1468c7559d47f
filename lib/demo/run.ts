import { mismatched, zeroed } from "../audit/controls.js";
import { partners } from "../audit/mismatch.js";
import { gain, share, verdict } from "../audit/report.js";
import { type Answered, answers } from "../evaluate/evaluate.js";
import { controlled, type Subject, subjectOf } from "../evaluate/subject.js";
import type { AuditReport, Channel, Gain, GateReport, Question, Task } from "../index.js";
import { median } from "../statistics.js";
import { loadPair } from "./pair.js";

/** Several generations run at once: their decode steps share batches. */
const CONCURRENT = 32;
/** Questions whose time to the first token is taken, one at a time. */
const TIMED = 8;

const SYSTEMS = ["receiver", "sharer", "text", "c2c"] as const;
/** The four ways to answer that are compared side by side. */
export type System = (typeof SYSTEMS)[number];

/** One question and what each system answered. */
export interface DemoExample {
  readonly question: string;
  readonly answer: string;
  readonly receiver: string;
  readonly sharer: string;
  readonly text: string;
  readonly c2c: string;
}

/** Accuracies are shares from 0 to 1: `accuracy` on the sharer's people, `own` on the receiver's, `mix` on both. */
export interface DemoReport {
  /** Questions of each group. */
  readonly questions: number;
  readonly accuracy: Readonly<Record<System | "mismatched" | "zeroed", number>>;
  readonly own: Readonly<Record<System, number>>;
  readonly mix: Readonly<Record<System, number>>;
  /** Medians, one question at a time. */
  readonly firstTokenMs: Readonly<Record<System, number>>;
  readonly gates: readonly GateReport[];
  /** On the sharer's people, as in an audit: C2C minus the mismatched cache, C2C minus the receiver alone, and what they mean. */
  readonly contentGain: Gain;
  readonly benefit: Gain;
  readonly verdict: AuditReport["verdict"];
  /** A question that C2C answers right, and one that it does not. */
  readonly example: DemoExample;
  readonly failure: DemoExample | null;
  readonly seconds: number;
}

/** `limit`: questions of each group, default all. `onProgress` hears of every part of the work, from 0 to 1. */
export interface DemoOptions {
  readonly limit?: number;
  onProgress?(part: string, done: number): void;
}

type Said = readonly Answered[];
const right = (said: Said): readonly boolean[] => said.map(({ correct }) => correct);

/** Runs the embedded pair on its held-out questions: each system, then the controls. */
export async function runDemo(options: DemoOptions = {}): Promise<DemoReport> {
  const started = performance.now();
  await using pair = await loadPair();
  const { receiver, sharer, text, channel } = pair;
  const foreign = pair.task("sharer", options.limit);
  const own = pair.task("receiver", options.limit);
  const systems: Readonly<Record<System, Subject>> = {
    receiver: subjectOf(receiver),
    sharer: subjectOf(sharer),
    text: subjectOf(text),
    c2c: subjectOf(channel),
  };
  const asked = async (part: string, subject: Subject, questions: readonly Question[]): Promise<Said> => {
    const task: Task = { ...foreign, questions };
    return await all(subject, task, CONCURRENT, (done) => options.onProgress?.(part, done / questions.length));
  };

  const said = new Map<System, Said>();
  const firstTokenMs = {} as Record<System, number>;
  const timed = [...foreign.questions.slice(0, TIMED), ...own.questions.slice(0, TIMED)];
  for (const system of SYSTEMS) {
    const alone = await all(systems[system], { ...foreign, questions: timed }, 1);
    firstTokenMs[system] = median(alone.map(({ timings }) => timings.firstTokenMs));
    said.set(system, await asked(system, systems[system], [...foreign.questions, ...own.questions]));
  }
  const n = foreign.questions.length;
  const part = (system: System, from: number, to?: number): readonly boolean[] =>
    right(said.get(system) ?? []).slice(from, to);
  const shares = (from: number, to?: number): Record<System, number> => {
    const of = (system: System): number => share(part(system, from, to));
    return { receiver: of("receiver"), sharer: of("sharer"), text: of("text"), c2c: of("c2c") };
  };

  const paired = await partners(channel, foreign.questions);
  const matched = foreign.questions.filter((question) => paired.has(question));
  const others = right(await asked("mismatched", controlled(channel, mismatched(channel, paired)), matched));
  const zeros = right(await asked("zeroed", controlled(channel, zeroed), foreign.questions));
  const fused = part("c2c", 0, n);
  const contentGain = gain(
    fused.filter((_, i) => paired.has(foreign.questions[i] as Question)),
    others,
  );
  const benefit = gain(fused, part("receiver", 0, n));
  const good = example(said, fused.indexOf(true));
  const bad = example(said, fused.indexOf(false));
  const shown = good ?? bad ?? { question: "", answer: "", receiver: "", sharer: "", text: "", c2c: "" };
  return {
    questions: n,
    accuracy: { ...shares(0, n), mismatched: share(others), zeroed: share(zeros) },
    own: shares(n),
    mix: shares(0),
    firstTokenMs,
    gates: await gatesOf(channel, shown.question),
    contentGain,
    benefit,
    verdict: verdict(contentGain, benefit),
    example: shown,
    failure: bad,
    seconds: (performance.now() - started) / 1000,
  };
}

async function all(subject: Subject, task: Task, batch: number, onDone?: (done: number) => void): Promise<Said> {
  const said: Answered[] = [];
  for await (const answered of answers(subject, task, { batch })) {
    said.push(answered);
    onDone?.(said.length);
  }
  return said;
}

function example(said: ReadonlyMap<System, Said>, index: number): DemoExample | null {
  const question = said.get("c2c")?.[index]?.question;
  if (!question) return null;
  const text = (system: System): string => said.get(system)?.[index]?.predicted ?? "";
  return {
    question: question.messages[0]?.content ?? "",
    answer: question.answer,
    receiver: text("receiver"),
    sharer: text("sharer"),
    text: text("text"),
    c2c: text("c2c"),
  };
}

async function gatesOf(channel: Channel, question: string): Promise<readonly GateReport[]> {
  const { cache, reports } = await channel.prefill(question);
  cache.dispose();
  return reports.at(-1)?.gates ?? [];
}
