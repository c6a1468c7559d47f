import type { Message } from "../types.js";
import { isObject } from "../weights/file.js";
import { type Row, rowInvalid } from "./rows.js";

/** One training item: a conversation that ends with the reply to learn. */
export interface ChatSample {
  readonly messages: readonly Message[];
}

/**
 * The published layouts that are read. "messages": `messages` (or `conversation`) of {role, content}. "openhermes": OpenHermes-2.5's
 * `conversations` of {from, value}. "mmlu": MMLU's auxiliary training rows {question, choices, answer: index}, also where they lie
 * inside a field `train`. "openbookqa": {question_stem, choices: {text, label}, answerKey} or the original's {question: {stem, choices}}.
 */
export type DataFormat = "messages" | "openhermes" | "mmlu" | "openbookqa";
export const dataFormats = ["messages", "openhermes", "mmlu", "openbookqa"] as const satisfies readonly DataFormat[];

/** Which layout a row has; null for none of them. */
export function detectFormat(row: Row): DataFormat | null {
  if (Array.isArray(row["messages"]) || Array.isArray(row["conversation"])) return "messages";
  if (Array.isArray(row["conversations"])) return "openhermes";
  if ("answerKey" in row && ("question_stem" in row || isObject(row["question"]))) return "openbookqa";
  const inner = isObject(row["train"]) ? row["train"] : row;
  return "question" in inner && "choices" in inner && "answer" in inner ? "mmlu" : null;
}

/** Where a row is from, for errors; `format`: default, what the row looks like. */
export interface RowPlace {
  readonly file: string;
  readonly index: number;
  readonly format?: DataFormat | undefined;
}

/**
 * One row as a sample. The conversation is cut behind its last reply; null where there is none. OpenHermes' system turns are left
 * out, as in the reference. FILE_INVALID names a row that does not hold what its layout asks for.
 */
export function toSample(
  row: Row,
  { file, index, format = detectFormat(row) ?? undefined }: RowPlace,
): ChatSample | null {
  if (format === undefined) {
    const known = dataFormats.join(", ");
    throw rowInvalid(file, `row ${index} has fields ${Object.keys(row).join(", ")}: none of the layouts ${known}`);
  }
  const messages = readers[format](row, (reason) => rowInvalid(file, `row ${index} (${format}): ${reason}`));
  const last = messages.findLastIndex(({ role }) => role === "assistant");
  return last < 0 ? null : { messages: messages.slice(0, last + 1) };
}

/**
 * Turns rows into samples; `format` defaults to what the first row looks like. Rows without a reply are left out: `skipped` is called
 * with their number so far. FILE_INVALID as `toSample`.
 */
export async function* readSamples(
  rows: Iterable<Row> | AsyncIterable<Row>,
  options: { readonly file: string; readonly format?: DataFormat; skipped?(count: number): void },
): AsyncGenerator<ChatSample, void> {
  let format = options.format;
  let index = 0;
  let skipped = 0;
  for await (const row of rows) {
    format ??= detectFormat(row) ?? undefined;
    const sample = toSample(row, { file: options.file, index, format });
    if (sample) yield sample;
    else options.skipped?.(++skipped);
    index += 1;
  }
}

type Problem = (reason: string) => Error;
type Reader = (row: Row, problem: Problem) => readonly Message[];

const readers: Readonly<Record<DataFormat, Reader>> = {
  messages: (row, problem) =>
    turns(row["messages"] ?? row["conversation"], "messages", problem).map((turn) => {
      const role = turn["role"];
      if (role !== "system" && role !== "user" && role !== "assistant") {
        throw problem(`role ${JSON.stringify(role)} is none of system, user, assistant`);
      }
      return { role, content: text(turn["content"], "content", problem) };
    }),
  openhermes: (row, problem) =>
    turns(row["conversations"], "conversations", problem).flatMap((turn) => {
      const from = turn["from"];
      if (from === "system") return [];
      if (from !== "human" && from !== "gpt")
        throw problem(`from ${JSON.stringify(from)} is none of system, human, gpt`);
      return [
        { role: from === "human" ? "user" : "assistant", content: text(turn["value"], "value", problem) } as const,
      ];
    }),
  mmlu: (row, problem) => {
    const inner = isObject(row["train"]) ? row["train"] : row;
    const choices = strings(inner["choices"], "choices", problem);
    const answer = inner["answer"];
    if (typeof answer !== "number" || !Number.isInteger(answer) || answer < 0 || answer >= choices.length) {
      throw problem(`answer ${JSON.stringify(answer)} is no index of ${choices.length} choices`);
    }
    return multipleChoice(text(inner["question"], "question", problem), choices, answer);
  },
  openbookqa: (row, problem) => {
    const nested = isObject(row["question"]) ? row["question"] : null;
    const stem = text(nested ? nested["stem"] : row["question_stem"], "the question's stem", problem);
    const { texts, labels } = labelled((nested ?? row)["choices"], problem);
    const answer = labels.indexOf(text(row["answerKey"], "answerKey", problem).trim());
    if (answer < 0) throw problem(`answerKey ${JSON.stringify(row["answerKey"])} is none of ${labels.join(", ")}`);
    return multipleChoice(stem, texts, answer);
  },
};

/** The reference's training prompt: question, lettered choices; the reply names the letter. */
function multipleChoice(question: string, choices: readonly string[], answer: number): readonly Message[] {
  const letter = (index: number): string => String.fromCharCode(65 + index);
  const lines = choices.map((choice, index) => `${letter(index)}. ${choice}`);
  return [
    { role: "user", content: `Question: ${question}\n\nChoices:\n${lines.join("\n")}` },
    { role: "assistant", content: `The correct answer is ${letter(answer)}.` },
  ];
}

/** {text: [], label: []} or [{text, label}]. */
function labelled(choices: unknown, problem: Problem): { texts: readonly string[]; labels: readonly string[] } {
  if (isObject(choices)) {
    const texts = strings(choices["text"], "choices.text", problem);
    const labels = strings(choices["label"], "choices.label", problem);
    if (texts.length !== labels.length) throw problem(`${texts.length} choices have ${labels.length} labels`);
    return { texts, labels };
  }
  const list = turns(choices, "choices", problem);
  return {
    texts: list.map((choice) => text(choice["text"], "a choice's text", problem)),
    labels: list.map((choice) => text(choice["label"], "a choice's label", problem)),
  };
}

function turns(value: unknown, field: string, problem: Problem): readonly Row[] {
  if (!Array.isArray(value) || !value.every(isObject)) throw problem(`${field} is not a list of objects`);
  return value;
}

function strings(value: unknown, field: string, problem: Problem): readonly string[] {
  if (!Array.isArray(value) || value.length === 0 || !value.every((item) => typeof item === "string")) {
    throw problem(`${field} is not a list of strings`);
  }
  return value;
}

function text(value: unknown, field: string, problem: Problem): string {
  if (typeof value !== "string") throw problem(`${field} is ${value === undefined ? "missing" : "not a string"}`);
  return value;
}
