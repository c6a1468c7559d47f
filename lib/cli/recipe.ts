import * as v from "valibot";
import { C2CError } from "../errors.js";
import { projectorKinds } from "../fuser/projectors/index.js";
import { parseObject, readText } from "../weights/file.js";

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));
const weight = v.pipe(v.number(), v.finite(), v.minValue(0));
const share = v.pipe(v.number(), v.minValue(0), v.ltValue(1));
const dtype = v.picklist(["float32", "bfloat16", "float16"]);
/** A whole number, or a string of digits where JSON's numbers end. */
const seed = v.pipe(
  v.union([whole, v.pipe(v.string(), v.regex(/^\d{1,20}$/, "a seed has digits only"))]),
  v.transform((value) => BigInt(value)),
);

const fuserRecipe = v.strictObject({
  hidden: v.exactOptional(count),
  intermediate: v.exactOptional(count),
  layers: v.exactOptional(count),
  dropout: v.exactOptional(share),
  projector: v.exactOptional(
    v.strictObject({
      kind: v.picklist(projectorKinds.map((kind) => kind.class)),
      options: v.exactOptional(v.record(v.string(), v.union([v.number(), v.boolean(), v.string()]))),
    }),
  ),
  layerMap: v.exactOptional(v.union([v.picklist(["last-aligned", "nearest"]), v.array(v.nullable(whole))])),
  align: v.exactOptional(v.picklist(["same", "first", "longest", "bytes"])),
  learningRate: v.exactOptional(positive),
  weightDecay: v.exactOptional(weight),
  warmupRatio: v.exactOptional(share),
  clipNorm: v.exactOptional(weight),
  batchSize: v.exactOptional(count),
  accumulate: v.exactOptional(count),
  epochs: v.exactOptional(positive),
  maxSteps: v.exactOptional(count),
  maxTokens: v.exactOptional(count),
  scheduleSteps: v.exactOptional(count),
  warmupSteps: v.exactOptional(whole),
  shuffle: v.exactOptional(v.boolean()),
  span: v.exactOptional(v.picklist(["prompt", "prompt-and-response"])),
  gumbel: v.exactOptional(v.boolean()),
  dtype: v.exactOptional(dtype),
  recompute: v.exactOptional(v.boolean()),
  checkpointEvery: v.exactOptional(count),
  validateEvery: v.exactOptional(count),
  temperature: v.exactOptional(v.strictObject({ initial: positive, final: positive, steps: v.exactOptional(count) })),
  seed: v.exactOptional(seed),
});

const modelRecipe = v.strictObject({
  learningRate: v.exactOptional(positive),
  weightDecay: v.exactOptional(weight),
  betas: v.exactOptional(v.pipe(v.tuple([share, share]), v.readonly())),
  warmupSteps: v.exactOptional(whole),
  steps: count,
  batchSize: v.exactOptional(count),
  clipNorm: v.exactOptional(weight),
  seed: v.exactOptional(seed),
  earlyExit: v.exactOptional(v.strictObject({ layers: v.pipe(v.array(whole), v.minLength(1)), weight: positive })),
  dtype: v.exactOptional(dtype),
  recompute: v.exactOptional(v.boolean()),
  checkpointEvery: v.exactOptional(count),
});

/** A recipe file of `c2c train`, checked: keys that are unknown or values out of range are OPTION_INVALID, named by their path. */
export function parseFuserRecipe(json: unknown): v.InferOutput<typeof fuserRecipe> {
  return check(fuserRecipe, json);
}

/** A recipe file of `c2c train-model`, checked likewise; `steps` must be there. */
export function parseModelRecipe(json: unknown): v.InferOutput<typeof modelRecipe> {
  return check(modelRecipe, json);
}

/** Reads a JSON object from a file. IO_FAILED, FILE_INVALID. */
export async function readRecipe(path: string): Promise<Record<string, unknown>> {
  return parseObject(await readText(path), path);
}

function check<S extends v.GenericSchema>(schema: S, json: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, Array.isArray(json) ? null : json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const key = v.getDotPath(issue);
  const unknown = issue.type === "strict_object" && issue.expected === "never";
  const reason = unknown ? `${key}: there is no such key` : `${key ?? "the recipe"}: ${issue.message}`;
  throw new C2CError("OPTION_INVALID", { option: "recipe", reason }, `recipe: ${reason}`);
}
