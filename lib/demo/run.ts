import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type Channel,
  connect,
  connectByText,
  type Fuser,
  type GateReport,
  loadFuser,
  loadModel,
  type Model,
} from "../index.js";
import { native } from "../native.js";
import { answerOptions, askAlone, askControl, collect, type DemoAnswer, type DemoQuestion, sharerRows } from "./ask.js";

/** Several generations run at once: their decode steps share batches. */
const CONCURRENT = 32;
/** Questions whose time to the first token is taken, one at a time. */
const TIMED = 8;
const MESSAGE_TOKENS = 96;

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

type Ask = (question: DemoQuestion) => Promise<DemoAnswer>;

/** Runs the embedded pair on its held-out questions: each system, then the controls. */
export async function runDemo(options: DemoOptions = {}): Promise<DemoReport> {
  const started = performance.now();
  // Models of this size lose more to handing work between threads than two threads win.
  native().setThreads(1);
  const folder = fileURLToPath(new URL("../../models/pair/", import.meta.url));
  const all = await readQuestions(join(folder, "questions.jsonl"));
  const take = (who: DemoQuestion["who"]): readonly DemoQuestion[] =>
    all.filter((q) => q.who === who).slice(0, options.limit);
  const foreign = take("sharer");
  const own = take("receiver");

  await using receiver = await loadModel({ kind: "folder", path: join(folder, "receiver") });
  await using sharer = await loadModel({ kind: "folder", path: join(folder, "sharer") });
  await using fuser = await loadFuser({ kind: "folder", path: join(folder, "fuser") }, { receiver, sharer });
  using channel = connect(receiver, [{ sharer, fuser }]);
  using byText = textChannel(receiver, sharer, [...foreign, ...own]);
  const systems: Readonly<Record<System, Ask>> = {
    receiver: (question) => askAlone(receiver, question),
    sharer: (question) => askAlone(sharer, question),
    text: (question) => askChannel(byText, question),
    c2c: (question) => askChannel(channel, question),
  };

  const answers = new Map<string, readonly DemoAnswer[]>();
  const firstTokenMs = {} as Record<System, number>;
  const accuracy = {} as Record<System, number>;
  const ownAccuracy = {} as Record<System, number>;
  const mix = {} as Record<System, number>;
  for (const system of SYSTEMS) {
    const ask = systems[system];
    firstTokenMs[system] = median(await times(ask, [...foreign.slice(0, TIMED), ...own.slice(0, TIMED)]));
    const said = await askAll([...foreign, ...own], ask, (done) => options.onProgress?.(system, done));
    answers.set(system, said);
    accuracy[system] = share(said.slice(0, foreign.length));
    ownAccuracy[system] = share(said.slice(foreign.length));
    mix[system] = share(said);
  }
  const others = await mismatches(fuser, foreign);
  const control = async (part: string, ask: Ask): Promise<number> =>
    share(await askAll(foreign, ask, (done) => options.onProgress?.(part, done)));
  const mismatched = await control("mismatched", (question) =>
    askControl(fuser, question, others.get(question.id) ?? "zeroed"),
  );
  const zeroed = await control("zeroed", (question) => askControl(fuser, question, "zeroed"));

  const fused = answers.get("c2c") ?? [];
  const example = (correct: boolean): DemoExample | null => {
    const index = foreign.findIndex((_, i) => fused[i]?.correct === correct);
    const question = foreign[index];
    if (!question) return null;
    const text = (system: System): string => answers.get(system)?.[index]?.text ?? "";
    const said = { receiver: text("receiver"), sharer: text("sharer"), text: text("text"), c2c: text("c2c") };
    return { question: question.question, answer: question.answer, ...said };
  };
  const good = example(true);
  const bad = example(false);
  const shown = good ?? bad ?? { question: "", answer: "", receiver: "", sharer: "", text: "", c2c: "" };
  return {
    questions: foreign.length,
    accuracy: { ...accuracy, mismatched, zeroed },
    own: ownAccuracy,
    mix,
    firstTokenMs,
    gates: await gatesOf(channel, shown.question),
    example: shown,
    failure: bad,
    seconds: (performance.now() - started) / 1000,
  };
}

async function readQuestions(path: string): Promise<readonly DemoQuestion[]> {
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => JSON.parse(line) as DemoQuestion);
}

/** The sharer is asked each question's `ask`; the receiver reads what it says and the question in one turn. */
export function textChannel(receiver: Model, sharer: Model, questions: readonly DemoQuestion[]): Channel {
  const asks = new Map(questions.map(({ question, ask }) => [question, ask]));
  return connectByText(receiver, sharer, {
    ask: (messages) =>
      messages.map((message) => ({ ...message, content: asks.get(message.content) ?? message.content })),
    compose: (messages, text) =>
      messages.map((message) => ({ ...message, content: `${text.trim()} ${message.content}` })),
    maxMessageTokens: MESSAGE_TOKENS,
  });
}

/** One question through a channel. */
export function askChannel(channel: Channel, question: DemoQuestion): Promise<DemoAnswer> {
  const started = performance.now();
  return collect(channel.generate(question.question, answerOptions), question, started);
}

/** Asks all questions, some at a time, in order. */
export async function askAll<Q extends DemoQuestion>(
  questions: readonly Q[],
  ask: (question: Q) => Promise<DemoAnswer>,
  onDone: (done: number) => void,
): Promise<readonly DemoAnswer[]> {
  const answers: DemoAnswer[] = [];
  for (let at = 0; at < questions.length; at += CONCURRENT) {
    answers.push(...(await Promise.all(questions.slice(at, at + CONCURRENT).map(ask))));
    onDone(answers.length / questions.length);
  }
  return answers;
}

async function times(ask: Ask, questions: readonly DemoQuestion[]): Promise<readonly number[]> {
  const taken: number[] = [];
  for (const question of questions) taken.push((await ask(question)).firstTokenMs);
  return taken;
}

/** For each question the next one, cyclic, whose answer differs and whose sharer rows are as many. */
export async function mismatches(
  fuser: Fuser,
  questions: readonly DemoQuestion[],
): Promise<ReadonlyMap<string, DemoQuestion>> {
  const rows: number[] = [];
  for (const question of questions) rows.push(await sharerRows(fuser, question));
  const found = new Map<string, DemoQuestion>();
  for (const [i, question] of questions.entries()) {
    for (let step = 1; step < questions.length; step++) {
      const at = (i + step) % questions.length;
      const other = questions[at];
      if (!other || other.answer === question.answer || rows[at] !== rows[i]) continue;
      found.set(question.id, other);
      break;
    }
  }
  return found;
}

async function gatesOf(channel: Channel, question: string): Promise<readonly GateReport[]> {
  const { cache, reports } = await channel.prefill(question);
  cache.dispose();
  return reports.at(-1)?.gates ?? [];
}

function share(answers: readonly DemoAnswer[]): number {
  return answers.filter(({ correct }) => correct).length / Math.max(answers.length, 1);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
