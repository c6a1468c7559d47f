import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { readRows } from "../data/rows.js";
import { C2CError, ioError } from "../errors.js";
import { choice, invalid } from "../options.js";
import type { Question, Task, TaskOptions } from "../types.js";
import { layouts } from "./tasks/index.js";
import { Fields, type Layout, type Place, promptStyles } from "./tasks/layout.js";

/**
 * A task of a benchmark's published files: `layout` is "mmlu-redux", "arc-challenge", "openbookqa", "c-eval", "gsm8k", "math-500",
 * "mmlu-pro", "gpqa-diamond", "longbench" or "questions" (one's own); `path` is a .jsonl or .parquet file, or a folder that is
 * searched for them. Rows are read when questions are asked for, each time anew. OPTION_INVALID, UNSUPPORTED for a layout that is
 * not there; when read, IO_FAILED and FILE_INVALID (a field that is missing, an id that comes twice, a folder without data).
 */
export function readTask(layout: string, path: string, options: TaskOptions = {}): Task {
  const found = layouts.find(({ name }) => name === layout);
  if (!found) {
    const supported = layouts.map(({ name }) => name);
    throw new C2CError(
      "UNSUPPORTED",
      { what: `task layout ${layout}`, supported },
      `task layout ${layout}: there are ${supported.join(", ")}`,
    );
  }
  const style = choice("prompt", options.prompt ?? "direct", promptStyles);
  const method = choice("method", options.method ?? found.method, ["generate", "logits", "exact"]);
  const where = options.where ?? {};
  const templates = options.templates ?? {};
  if (Object.values(templates).some((template) => typeof template !== "string")) {
    throw invalid("templates", "must hold a string for each data set");
  }
  return {
    name: options.name ?? found.name,
    method,
    maxNewTokens:
      options.maxNewTokens ?? (style === "reasoning" ? Math.max(1024, found.maxNewTokens) : found.maxNewTokens),
    questions: { [Symbol.asyncIterator]: () => questions(found, path, { style, templates }, where) },
    ...(found.judge && method === "generate" && { judge: found.judge }),
  };
}

async function* questions(
  layout: Layout,
  path: string,
  how: Pick<Place, "style" | "templates">,
  where: Readonly<Record<string, unknown>>,
): AsyncGenerator<Question, void> {
  const ids = new Set<string>();
  for (const file of await dataFiles(path)) {
    const subject = subjectOf(file);
    let index = 0;
    for await (const row of readRows(file)) {
      const fields = new Fields(row, { ...how, file, index, subject });
      const place: Place = { ...how, file, index, subject };
      index += 1;
      if (Object.entries(where).some(([name, value]) => row[name] !== value)) continue;
      const question = layout.question(fields, place);
      if (!question) continue;
      if (ids.has(question.id)) throw fields.problem(`id ${question.id} has come before`);
      ids.add(question.id);
      yield question;
    }
  }
}

/** A file by itself, or every data file below a folder, in the order of their paths. */
async function dataFiles(path: string): Promise<readonly string[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [path];
    const below = await readdir(path, { recursive: true });
    const files = below.filter((name) => [".jsonl", ".parquet"].includes(extname(name))).sort();
    if (files.length === 0) {
      const reason = "holds no .jsonl or .parquet file";
      throw new C2CError("FILE_INVALID", { file: path, reason }, `${path} ${reason}`);
    }
    return files.map((name) => join(path, name));
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

/** The subject in a path: the file's stem, or its folder where the stem only names a split ("test-00000-of-00001", "val"). */
export function subjectOf(file: string): string {
  const stem = basename(file, extname(file));
  return /^(?:test|val|validation|dev|train|data)(?:-\d+(?:-of-\d+)?)?$/.test(stem) ? basename(dirname(file)) : stem;
}
