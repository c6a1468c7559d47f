import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type AuditPlan, planAudit, reportOf } from "../../audit/audit.js";
import type { Part } from "../../audit/report.js";
import { C2CError, ioError } from "../../errors.js";
import { answers, take } from "../../evaluate/evaluate.js";
import { type Subject, subjectOf } from "../../evaluate/subject.js";
import { type AuditReport, type Channel, type Model, type Question, readTask, type Task } from "../../index.js";
import { native } from "../../native.js";
import { invalid } from "../../options.js";
import { median } from "../../statistics.js";
import { writeAtomic } from "../../weights/atomic.js";
import { parseObject, readText, readTextIfThere } from "../../weights/file.js";
import { type EvalConfig, readConfig, type SubjectName } from "./config.js";
import { type EvalRecord, Records, toRecord } from "./records.js";
import { loadSubjects } from "./subjects.js";

/** Medians over questions asked one at a time; null where none were. */
export interface Times {
  readonly firstTokenMs: number;
  readonly answerMs: number;
  readonly n: number;
}

/** What one task's subjects answered, in the same order of questions, and what the audits of its fusers found. */
export interface TaskResult {
  readonly name: string;
  readonly method: Task["method"];
  readonly choices: boolean;
  readonly subjects: readonly {
    readonly name: SubjectName;
    readonly records: readonly EvalRecord[];
    readonly times: Times | null;
  }[];
  /** By fused subject; a string says why there is none. */
  readonly audits: Readonly<Record<string, (AuditReport & { readonly leftOut: number }) | string>>;
}

/** `onProgress` hears of every part of the work, from 0 to 1. */
export interface RunOptions {
  readonly signal?: AbortSignal;
  onProgress?(part: string, done: number): void;
}

/** Runs or continues the evaluation of a configuration file. Answers are on disk before they are counted. */
export async function runEvaluation(
  path: string,
  options: RunOptions = {},
): Promise<{ readonly config: EvalConfig; readonly tasks: readonly TaskResult[] }> {
  const config = await readConfig(path);
  if (config.threads !== undefined) native().setThreads(config.threads);
  await using loaded = await loadSubjects(config, dirname(path));
  // Only now: a path that leads nowhere should not make the folder another evaluation's.
  await claim(config);
  const tasks: TaskResult[] = [];
  for (const one of config.tasks) {
    const { layout, path: data, templates, ...rest } = one;
    const given = templates === undefined ? null : parseObject(await readText(templates), templates);
    const task = readTask(layout, data, {
      ...defined(rest),
      ...(given && { templates: given as Record<string, string> }),
    });
    tasks.push(await new TaskRun(config, task, loaded.subjects, options).run());
  }
  return { config, tasks };
}

/** Makes the output folder this evaluation's. OPTION_INVALID where it holds another one. */
async function claim(config: EvalConfig): Promise<void> {
  const file = join(config.output, "config.json");
  const { batch: _, output: __, threads: ___, ...same } = config;
  const content = `${JSON.stringify(same, null, 2)}\n`;
  try {
    await mkdir(config.output, { recursive: true });
  } catch (error) {
    throw ioError(error, config.output, "mkdir");
  }
  const before = await readTextIfThere(file);
  if (before === content) return;
  if (before !== null)
    throw invalid("output", `${config.output} holds another evaluation: name another folder or remove it`);
  await writeAtomic(file, content);
}

class TaskRun {
  readonly #config: EvalConfig;
  readonly #task: Task;
  readonly #subjects: ReadonlyMap<SubjectName, Model | Channel>;
  readonly #options: RunOptions;

  constructor(
    config: EvalConfig,
    task: Task,
    subjects: ReadonlyMap<SubjectName, Model | Channel>,
    options: RunOptions,
  ) {
    this.#config = config;
    this.#task = task;
    this.#subjects = subjects;
    this.#options = options;
  }

  async run(): Promise<TaskResult> {
    const questions: Question[] = [];
    for await (const question of take(this.#task.questions, this.#config.limit ?? Number.POSITIVE_INFINITY)) {
      questions.push(question);
    }
    if (questions.length === 0) throw invalid("tasks", `${this.#task.name} has no question`);
    const subjects: { name: SubjectName; records: readonly EvalRecord[]; times: Times | null }[] = [];
    for (const [name, one] of this.#subjects) {
      const subject = subjectOf(one);
      const records = await this.#ask(name, subject, questions);
      subjects.push({ name, records, times: await this.#times(name, subject, questions) });
    }
    const audits: Record<string, TaskResult["audits"][string]> = {};
    for (const [name, one] of this.#subjects) {
      if (name !== "c2c" && name !== "identical") continue;
      audits[name] = this.#config.audit ? await this.#audit(name, one as Channel, questions) : "not audited";
    }
    const choices = questions.every((question) => question.choices !== undefined);
    return { name: this.#task.name, method: this.#task.method, choices, subjects, audits };
  }

  /** The answers of a subject, those on disk first. */
  async #ask(name: string, subject: Subject, questions: readonly Question[]): Promise<readonly EvalRecord[]> {
    await using records = await Records.open(await this.#file(`${name}.jsonl`), questions);
    const { signal, onProgress } = this.#options;
    const rest = questions.slice(records.all.length);
    const options = { batch: this.#config.batch, ...(signal && { signal }) };
    if (rest.length > 0) {
      for await (const answered of answers(subject, { ...this.#task, questions: rest }, options)) {
        await records.add(toRecord(answered));
        onProgress?.(`${this.#task.name}: ${name}`, records.all.length / questions.length);
      }
    }
    return records.all;
  }

  /** The first questions once more, one at a time: several at once wait for each other. */
  async #times(name: string, subject: Subject, questions: readonly Question[]): Promise<Times | null> {
    const count = Math.min(this.#config.timed, questions.length);
    if (count === 0) return null;
    const file = await this.#file(`${name}.times.json`);
    const known = await readTextIfThere(file);
    if (known !== null) return parseObject(known, file) as unknown as Times;
    const { signal } = this.#options;
    const firsts: number[] = [];
    const wholes: number[] = [];
    const task = { ...this.#task, questions: questions.slice(0, count) };
    let started = performance.now();
    for await (const { timings } of answers(subject, task, { batch: 1, ...(signal && { signal }) })) {
      firsts.push(timings.firstTokenMs);
      wholes.push(performance.now() - started);
      started = performance.now();
    }
    const times: Times = { firstTokenMs: median(firsts), answerMs: median(wholes), n: count };
    await writeAtomic(file, `${JSON.stringify(times)}\n`);
    return times;
  }

  async #audit(
    name: SubjectName,
    channel: Channel,
    questions: readonly Question[],
  ): Promise<TaskResult["audits"][string]> {
    let plan: AuditPlan;
    try {
      const text = name === "c2c" ? this.#subjects.get("text") : undefined;
      plan = await planAudit(channel, { ...this.#task, questions }, text ? { text: text as Channel } : {});
    } catch (error) {
      if (error instanceof C2CError && error.code === "OPTION_INVALID") return `not audited: ${error.message}`;
      throw error;
    }
    const asked = new Set(plan.questions.map(({ id }) => id));
    const outcomes = new Map<Part, readonly boolean[]>();
    for (const [part, [subject]] of plan.subjects) {
      if (!subject) continue;
      // The receiver, the sharer, the text and the channel itself answer every question, in records that the tables share.
      const whole = shared(part, name);
      const records = await this.#ask(whole ?? `${name}-${part}`, subject, whole ? questions : plan.questions);
      outcomes.set(
        part,
        records.filter(({ id }) => asked.has(id)).map(({ correct }) => correct),
      );
    }
    return { ...reportOf(outcomes), leftOut: plan.leftOut };
  }

  async #file(name: string): Promise<string> {
    const folder = join(this.#config.output, this.#task.name);
    try {
      await mkdir(folder, { recursive: true });
    } catch (error) {
      throw ioError(error, folder, "mkdir");
    }
    return join(folder, name);
  }
}

/** The subject whose answers a part of an audit takes; null for a control, which has its own. */
function shared(part: Part, audited: SubjectName): SubjectName | null {
  if (part === "correct") return audited;
  if (part === "sharer") return audited === "identical" ? "receiver" : "sharer";
  return part === "receiver" || part === "text" ? part : null;
}

function defined<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(kept) as { [K in keyof T]: Exclude<T[K], undefined> };
}
