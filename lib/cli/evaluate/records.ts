import { type FileHandle, open, readFile } from "node:fs/promises";
import { ioError } from "../../errors.js";
import type { Answered } from "../../evaluate/evaluate.js";
import type { Question, Timings } from "../../types.js";
import { invalid as fileInvalid } from "../../weights/file.js";

/** One answered question as a line of a file. */
export interface EvalRecord {
  readonly id: string;
  readonly group?: string;
  /** The right answer. */
  readonly answer: string;
  readonly predicted: string | null;
  readonly correct: boolean;
  readonly score?: number;
  readonly text: string;
  readonly timings: Timings;
}

/** What of an answer is kept. */
export function toRecord({ question, predicted, correct, score, text, timings }: Answered): EvalRecord {
  const { id, group, answer } = question;
  return {
    id,
    ...(group !== undefined && { group }),
    answer,
    predicted,
    correct,
    ...(score !== undefined && { score }),
    text,
    timings,
  };
}

/**
 * Answers in a file, one JSON object a line, written one by one: an end at any moment loses at most the line being written, which is
 * cut off when the file is opened again.
 */
export class Records implements AsyncDisposable {
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #all: EvalRecord[];

  private constructor(handle: FileHandle, path: string, all: EvalRecord[]) {
    this.#handle = handle;
    this.#path = path;
    this.#all = all;
  }

  /** Opens a file of answers to the first of these questions, made where missing. FILE_INVALID for answers to others; IO_FAILED. */
  static async open(path: string, questions: readonly Question[]): Promise<Records> {
    try {
      const handle = await open(path, "a+");
      try {
        const { records, bytes } = await readRecords(path);
        for (const [i, { id, answer }] of records.entries()) {
          const question = questions[i];
          if (question?.id !== id || question.answer !== answer) {
            throw fileInvalid(
              path,
              `line ${i + 1} answers ${id}, the task's question there is ${question?.id ?? "none"}`,
            );
          }
        }
        await handle.truncate(bytes);
        return new Records(handle, path, records);
      } catch (error) {
        await handle.close();
        throw error;
      }
    } catch (error) {
      throw ioError(error, path, "open");
    }
  }

  get all(): readonly EvalRecord[] {
    return this.#all;
  }

  async add(record: EvalRecord): Promise<void> {
    try {
      await this.#handle.appendFile(`${JSON.stringify(record)}\n`);
    } catch (error) {
      throw ioError(error, this.#path, "write");
    }
    this.#all.push(record);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#handle.close();
  }
}

/** Whole lines and the bytes that they take. */
async function readRecords(path: string): Promise<{ records: EvalRecord[]; bytes: number }> {
  const content = await readFile(path);
  const bytes = content.lastIndexOf(0x0a) + 1;
  const lines = content.subarray(0, bytes).toString("utf8").split("\n").slice(0, -1);
  const records = lines.map((line, i): EvalRecord => {
    try {
      return JSON.parse(line);
    } catch {
      throw fileInvalid(path, `line ${i + 1} is not JSON`);
    }
  });
  return { records, bytes };
}
