import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { invalid as fileInvalid, parseObject, readText } from "../../weights/file.js";

const count = v.pipe(v.number(), v.integer(), v.minValue(1));
const text = v.pipe(v.string(), v.minLength(1));

const task = v.strictObject({
  /** One of the layouts of `readTask`. */
  layout: text,
  /** A .jsonl or .parquet file, or a folder of them. */
  path: text,
  /** Default: the layout's name. Names of tasks differ. */
  name: v.optional(v.pipe(v.string(), v.regex(/^[\w.' -]+$/, "holds characters that no file name should have"))),
  method: v.optional(v.picklist(["generate", "logits", "exact"])),
  prompt: v.optional(v.picklist(["direct", "reasoning", "plain"])),
  maxNewTokens: v.optional(count),
  where: v.optional(v.record(v.string(), v.union([v.string(), v.number(), v.boolean()]))),
  /** A JSON file of LongBench's templates (dataset2prompt.json). */
  templates: v.optional(text),
});

const link = v.strictObject({
  sharer: text,
  fuser: text,
  align: v.optional(v.picklist(["same", "first", "longest", "bytes"])),
  span: v.optional(v.picklist(["prompt", "prompt-and-response"])),
});

/** The subjects of an evaluation, in the order of its tables. */
const SUBJECTS = ["receiver", "single", "sharer", "text", "identical", "c2c"] as const;
export type SubjectName = (typeof SUBJECTS)[number];

const config = v.strictObject({
  /** Where the results go: made where missing, continued where it holds the same evaluation. */
  output: text,
  receiver: text,
  /** Sharers and their fusers; more than one are fused one after another. */
  links: v.optional(v.array(link), []),
  /** Control: the receiver fine-tuned alone, a model. */
  single: v.optional(text),
  /** Control: a fuser trained with the receiver as its own sharer. */
  identical: v.optional(text),
  /** Default: every subject whose models are named. */
  subjects: v.optional(v.array(v.picklist(SUBJECTS))),
  /** Text-to-text. "background": the reference's two stages; "before": the sharer's text stands before the question, in one message. */
  text: v.optional(
    v.strictObject({
      style: v.optional(v.picklist(["background", "before"]), "background"),
      maxMessageTokens: v.optional(count, 256),
    }),
    {},
  ),
  tasks: v.pipe(v.array(task), v.minLength(1)),
  /** The first questions of each task only. */
  limit: v.optional(count),
  /** Questions in work at once. */
  batch: v.optional(count, 16),
  /** Questions that are asked again one at a time for the times in the table; 0 for none. */
  timed: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 8),
  /** Threads of the computation; default: libtorch's choice. One is best for models of a few million parameters. */
  threads: v.optional(count),
  /** The audit's controls for every fuser, beside its accuracy. */
  audit: v.optional(v.boolean(), true),
});

/** An evaluation, checked, with defaults filled in. */
export type EvalConfig = v.InferOutput<typeof config>;

/**
 * Reads and checks a configuration. Paths in it are relative to its own folder. FILE_INVALID names the key that is wrong; IO_FAILED.
 */
export async function readConfig(path: string): Promise<EvalConfig> {
  const parsed = v.safeParse(config, parseObject(await readText(path), path));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw fileInvalid(path, `key ${v.getDotPath(issue) ?? "?"}: ${issue.message}`);
  }
  const found = parsed.output;
  const names = found.tasks.map(({ name, layout }) => name ?? layout);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw fileInvalid(path, `key tasks: two tasks are named ${twice}`);
  for (const subject of found.subjects ?? []) {
    const lack = needs(subject, found);
    if (lack) throw fileInvalid(path, `key subjects: ${subject} needs ${lack}`);
  }
  const here = (name: string): string => resolve(dirname(path), name);
  return {
    ...found,
    output: here(found.output),
    tasks: found.tasks.map((one) => ({
      ...one,
      path: here(one.path),
      ...(one.templates !== undefined && { templates: here(one.templates) }),
    })),
  };
}

/** The subjects that a configuration asks for. */
export function subjectsOf(found: EvalConfig): readonly SubjectName[] {
  return SUBJECTS.filter((name) => (found.subjects ? found.subjects.includes(name) : needs(name, found) === null));
}

/** The key that a subject lacks, or null. */
function needs(subject: SubjectName, { links, single, identical }: v.InferOutput<typeof config>): string | null {
  if (subject === "single") return single === undefined ? "single" : null;
  if (subject === "identical") return identical === undefined ? "identical" : null;
  return subject !== "receiver" && links.length === 0 ? "links" : null;
}
