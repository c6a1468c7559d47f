import { formatAudit, gain, gainText, percent } from "../../audit/report.js";
import { barChart } from "../../chart.js";
import { type Summary, summarise } from "../../evaluate/evaluate.js";
import type { AuditReport, Gain } from "../../index.js";
import { pair } from "../../statistics.js";
import type { SubjectName } from "./config.js";
import type { TaskResult, Times } from "./run.js";

/** The numbers of an evaluation, as `report.json` and `--json` give them. Shares are from 0 to 1, times in milliseconds. */
export interface EvalReport {
  readonly tasks: readonly {
    readonly name: string;
    readonly method: string;
    readonly n: number;
    readonly subjects: readonly (Summary & { readonly name: SubjectName; readonly times: Times | null })[];
    /** First minus second on the same questions; how many only the first, only the second had right. */
    readonly pairs: readonly (Gain & {
      readonly first: SubjectName;
      readonly second: SubjectName;
      readonly onlyFirst: number;
      readonly onlySecond: number;
    })[];
    readonly audits: Readonly<Record<string, (AuditReport & { readonly leftOut: number }) | string>>;
  }[];
}

/** Sums an evaluation up. */
export function reportTasks(tasks: readonly TaskResult[]): EvalReport {
  return {
    tasks: tasks.map(({ name, method, subjects, audits }) => {
      const right = subjects.map(({ records }) => records.map(({ correct }) => correct));
      const pairs = subjects.flatMap((one, i) =>
        subjects.slice(i + 1).map((other, k) => {
          const [second, first] = [right[i] ?? [], right[i + 1 + k] ?? []];
          const counts = pair(first, second);
          return {
            first: other.name,
            second: one.name,
            ...gain(first, second),
            onlyFirst: counts.first,
            onlySecond: counts.second,
          };
        }),
      );
      return {
        name,
        method,
        n: subjects[0]?.records.length ?? 0,
        subjects: subjects.map((one) => ({ name: one.name, ...summarise(one.records), times: one.times })),
        pairs,
        audits,
      };
    }),
  };
}

const NAMES: Readonly<Record<SubjectName, string>> = {
  receiver: "receiver alone",
  single: "receiver fine-tuned alone",
  sharer: "sharer alone",
  text: "text-to-text",
  identical: "receiver as its own sharer",
  c2c: "cache-to-cache",
};

/** Tables for a terminal: accuracies, audits, paired tests, answers. `choices`: by task, whether answers are letters. */
export function formatReport(report: EvalReport, choices: readonly boolean[]): string {
  return report.tasks
    .map((task, i) =>
      [...accuracies(task), ...audits(task), ...tests(task), ...(choices[i] ? letters(task) : [])].join("\n"),
    )
    .join("\n\n");
}

type TaskReport = EvalReport["tasks"][number];

function accuracies({ name, method, n, subjects }: TaskReport): readonly string[] {
  const scored = subjects.some(({ score }) => score !== undefined);
  const timed = subjects[0]?.times;
  const rows = subjects.map((one) => {
    const { accuracy, low, high, score, times } = one;
    const time = times
      ? `${times.firstTokenMs.toFixed(1).padStart(12)} ms${times.answerMs.toFixed(1).padStart(11)} ms`
      : "";
    const extra = scored ? percent(score ?? 0) : "";
    return `  ${NAMES[one.name].padEnd(28)}${percent(accuracy)}  ${percent(low)} to${percent(high)}${extra}${time}`;
  });
  const head = `${"correct".padStart(8)}   95 % interval      ${scored ? "      F1" : ""}${timed ? "   first token   whole answer" : ""}`;
  const note = timed ? `  Times are medians of ${timed.n} questions asked one at a time.` : "";
  return [`${name} (${method}, n = ${n})`, "", `  ${"".padEnd(28)}${head}`, ...rows, ...(note ? [note] : [])];
}

function audits({ audits }: TaskReport): readonly string[] {
  return Object.entries(audits).flatMap(([name, found]) => {
    const title = `  Audit of ${NAMES[name as SubjectName]}`;
    if (typeof found === "string") return ["", `${title}: ${found}`];
    const left = found.leftOut > 0 ? [`  ${found.leftOut} questions without a partner are left out of it.`] : [];
    return ["", title, formatAudit(found), ...left];
  });
}

function tests({ pairs }: TaskReport): readonly string[] {
  if (pairs.length === 0) return [];
  const rows = pairs.map(
    (one) =>
      `  ${`${NAMES[one.first]} − ${NAMES[one.second]}`.padEnd(56)}${gainText(one)}  (${one.onlyFirst} : ${one.onlySecond})`,
  );
  return ["", "  Paired differences, McNemar's exact p, and how many only one of the two had right", ...rows];
}

function letters({ subjects }: TaskReport): readonly string[] {
  const names = [...new Set(subjects.flatMap(({ answers }) => Object.keys(answers)))].sort();
  const head = names.map((name) => (name || "none").padStart(7)).join("");
  const rows = subjects.map(
    ({ name, answers }) =>
      `  ${NAMES[name].padEnd(28)}${names.map((letter) => String(answers[letter] ?? 0).padStart(7)).join("")}`,
  );
  return ["", `  ${"Answers given".padEnd(28)}${head}`, ...rows];
}

/** Every answer as a row of one table (RFC 4180). */
export function csvOf(tasks: readonly TaskResult[]): string {
  const head = [
    "task",
    "subject",
    "id",
    "group",
    "answer",
    "predicted",
    "correct",
    "score",
    "first_token_ms",
    "new_tokens",
    "text",
  ];
  const rows = tasks.flatMap(({ name, subjects }) =>
    subjects.flatMap((subject) =>
      subject.records.map(({ id, group, answer, predicted, correct, score, timings, text }) => [
        name,
        subject.name,
        id,
        group ?? "",
        answer,
        predicted ?? "",
        correct ? "1" : "0",
        score === undefined ? "" : String(score),
        timings.firstTokenMs.toFixed(2),
        String(timings.newTokens),
        text,
      ]),
    ),
  );
  const cell = (value: string): string => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return `${[head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** Accuracies with their intervals as grouped bars. */
export function chartOf({ tasks }: EvalReport): string {
  const names = [...new Set(tasks.flatMap(({ subjects }) => subjects.map(({ name }) => name)))];
  return barChart({
    title: "Accuracy with 95 % intervals",
    y: "correct (%)",
    high: 100,
    groups: tasks.map(({ name }) => name),
    series: names.map((name) => ({
      name: NAMES[name],
      bars: tasks.map(({ subjects }) => {
        const found = subjects.find((subject) => subject.name === name);
        return found ? { value: found.accuracy * 100, low: found.low * 100, high: found.high * 100 } : null;
      }),
    })),
  });
}
