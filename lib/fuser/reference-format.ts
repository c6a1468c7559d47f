import { mkdir, readdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import * as v from "valibot";
import type { HeadShape, ProjectorSpec, TensorEntry } from "../../typings/native.js";
import { C2CError, ioError } from "../errors.js";
import type { AlignStrategy } from "../types.js";
import { writeAtomic } from "../weights/atomic.js";
import { readCheckpoint, writeCheckpoint } from "../weights/checkpoint.js";
import { invalid, isObject, parseObject, readText, readTextIfThere } from "../weights/file.js";
import { type FuserFolder, projectorPrefix } from "./folder-types.js";
import { numbered, weightGroups } from "./native-format.js";
import { projectorKind, projectorOptions } from "./projectors/index.js";

/** The file that marks a folder as one of the reference's. */
export const LAYER_FILE = "projector_config.json";
const RECIPE = "config.json";
const STRATEGIES = ["first", "longest", "bytes"] as const;

const size = v.pipe(v.number(), v.integer(), v.minValue(1));
const index = v.pipe(v.number(), v.integer(), v.minValue(0));
const pairs = v.record(v.pipe(v.string(), v.regex(/^\d+$/)), v.pipe(v.array(v.tuple([index, index])), v.minLength(1)));
const layerFile = v.record(v.string(), v.record(v.string(), pairs));
const projectorFile = v.object({
  class: v.string(),
  init_args: v.looseObject({
    source_dim: size,
    target_dim: size,
    source_num_heads: v.optional(size, 1),
    target_num_heads: v.optional(size, 1),
  }),
});

/** One projector's JSON, understood. */
interface Described {
  readonly kind: string;
  readonly options: ProjectorSpec["options"];
  readonly receiver: HeadShape;
  readonly sharer: HeadShape;
}

/**
 * Reads a folder with projector_config.json, projector_*.json and projector_*.pt; the recipe is config.json beside them or one folder
 * above. Errors: IO_FAILED; FILE_INVALID for missing, extra or disagreeing files; UNSUPPORTED for projector classes and several sharers.
 */
export async function readReference(folder: string): Promise<FuserFolder> {
  const map = await readLayerFile(join(folder, LAYER_FILE));
  const indices = await projectorIndices(folder);
  const mentioned = new Set(map.flatMap(({ all }) => all));
  for (const wanted of mentioned) {
    if (!indices.has(wanted)) throw invalid(folder, `projector_${wanted}.pt is missing, ${LAYER_FILE} names it`);
  }
  for (const present of indices) {
    if (!mentioned.has(present)) throw invalid(folder, `projector_${present}.pt is in no layer of ${LAYER_FILE}`);
  }
  const described = new Map<number, Described>();
  const files: string[] = [];
  const tensors: TensorEntry[] = [];
  for (const used of [...new Set(map.map(({ projector }) => projector))].sort((a, b) => a - b)) {
    described.set(used, await describe(join(folder, `projector_${used}.json`)));
    const path = join(folder, `projector_${used}.pt`);
    for (const entry of await readCheckpoint(path)) {
      tensors.push({ ...entry, name: projectorPrefix(used) + entry.name, file: files.length });
    }
    files.push(path);
  }
  const common = agree(folder, [...described.values()]);
  const projectors = map.map(({ receiverLayer, sharerLayer, projector }) => ({
    kind: common.kind,
    receiverLayer,
    sharerLayer,
    options: described.get(projector)?.options ?? common.options,
    prefix: projectorPrefix(projector),
  }));
  const { align, recipe } = await readRecipe(folder);
  const { kind } = projectorKind(common.kind);
  return {
    kind,
    projectors,
    receiver: common.receiver,
    sharer: common.sharer,
    table: { files, tensors },
    align,
    recipe,
  };
}

async function readLayerFile(
  path: string,
): Promise<{ receiverLayer: number; sharerLayer: number; projector: number; all: number[] }[]> {
  const parsed = v.safeParse(layerFile, parseObject(await readText(path), path));
  if (!parsed.success) throw invalid(path, `key ${v.getDotPath(parsed.issues[0]) ?? "?"}: ${parsed.issues[0].message}`);
  const receivers = Object.values(parsed.output);
  const sharers = Object.values(receivers[0] ?? {});
  const [layers] = sharers;
  if (receivers.length !== 1 || sharers.length > 1) {
    const what = "a fuser folder with several models";
    throw new C2CError(
      "UNSUPPORTED",
      { what, supported: ["one receiver and one sharer"] },
      `${path}: ${what} is not supported`,
    );
  }
  if (!layers || Object.keys(layers).length === 0) throw invalid(path, "names no layer");
  return Object.entries(layers)
    .map(([layer, list]) => {
      const [sharerLayer, projector] = list[0] ?? [0, 0];
      return { receiverLayer: Number(layer), sharerLayer, projector, all: list.map((pair) => pair[1]) };
    })
    .sort((a, b) => a.receiverLayer - b.receiverLayer);
}

async function projectorIndices(folder: string): Promise<Set<number>> {
  try {
    const names = await readdir(folder);
    return new Set(names.flatMap((name) => /^projector_(\d+)\.pt$/.exec(name)?.[1] ?? []).map(Number));
  } catch (error) {
    throw ioError(error, folder, "list");
  }
}

async function describe(path: string): Promise<Described> {
  const text = await readTextIfThere(path);
  if (text === null) throw invalid(dirname(path), `${basename(path)} is missing`);
  const parsed = v.safeParse(projectorFile, parseObject(text, path));
  if (!parsed.success) throw invalid(path, `key ${v.getDotPath(parsed.issues[0]) ?? "?"}: ${parsed.issues[0].message}`);
  const { class: kind, init_args: args } = parsed.output;
  return {
    kind,
    options: projectorOptions(kind, args),
    receiver: { kvHeads: args.target_num_heads, headDim: args.target_dim },
    sharer: { kvHeads: args.source_num_heads, headDim: args.source_dim },
  };
}

function agree(folder: string, described: readonly Described[]): Described {
  const [first] = described;
  if (!first) throw invalid(folder, "holds no projector");
  const identity = ({ kind, receiver, sharer }: Described): string => JSON.stringify([kind, receiver, sharer]);
  if (described.some((other) => identity(other) !== identity(first)))
    throw invalid(folder, "projectors differ in class or dimensions");
  return first;
}

async function readRecipe(folder: string): Promise<{ align: AlignStrategy; recipe: unknown }> {
  for (const path of [join(folder, RECIPE), join(dirname(resolve(folder)), RECIPE)]) {
    const text = await readTextIfThere(path);
    if (text === null) continue;
    const recipe = parseRecipe(text);
    return { align: strategyOf(recipe, path), recipe };
  }
  return { align: "same", recipe: null };
}

/** A recipe is JSON, or YAML that is kept as text. */
function parseRecipe(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function strategyOf(recipe: unknown, path: string): AlignStrategy {
  const model = isObject(recipe) && isObject(recipe.model) ? recipe.model : {};
  const yaml = typeof recipe === "string" ? recipe : "";
  const aligned = model.is_do_alignment ?? /^\s*is_do_alignment:\s*true\b/im.test(yaml);
  if (aligned !== true) return "same";
  const name = model.alignment_strategy ?? /^\s*alignment_strategy:\s*["']?(\w+)/m.exec(yaml)?.[1] ?? "first";
  const known = STRATEGIES.find((strategy) => strategy === name);
  if (known) return known;
  const what = `alignment strategy ${String(name)}`;
  throw new C2CError("UNSUPPORTED", { what, supported: STRATEGIES }, `${path}: ${what} is not supported`);
}

/** Writes config.json and final/ into an empty folder. Errors: IO_FAILED, FILE_INVALID. */
export async function writeReference(fuser: FuserFolder, folder: string): Promise<void> {
  const final = join(folder, "final");
  await mkdir(final);
  const layers: Record<string, [number, number][]> = {};
  const specs = numbered(fuser.projectors);
  for (const { spec, index } of specs) layers[spec.receiverLayer] = [[spec.sharerLayer, index]];
  for (const { index, tensors } of weightGroups(fuser)) {
    const spec = specs.find((candidate) => candidate.index === index)?.spec;
    const content = {
      class: spec?.kind,
      init_args: {
        source_dim: fuser.sharer.headDim,
        target_dim: fuser.receiver.headDim,
        source_num_heads: fuser.sharer.kvHeads,
        target_num_heads: fuser.receiver.kvHeads,
        ...spec?.options,
        dtype: { __type__: "torch.dtype", value: TORCH_DTYPES[tensors[0]?.dtype ?? "F32"] },
      },
    };
    await writeAtomic(join(final, `projector_${index}.json`), `${JSON.stringify(content, null, 2)}\n`);
    await writeCheckpoint(join(final, `projector_${index}.pt`), tensors);
  }
  await writeAtomic(join(final, LAYER_FILE), `${JSON.stringify({ 0: { 1: layers } })}\n`);
  await writeAtomic(join(folder, RECIPE), recipeText(fuser));
}

const TORCH_DTYPES = { F32: "float32", BF16: "bfloat16", F16: "float16", F64: "float64" } as const;

/** The recipe as it was, its alignment brought up to date. A YAML recipe is kept as it is. */
function recipeText({ recipe, align }: FuserFolder): string {
  if (typeof recipe === "string") return recipe;
  const whole = isObject(recipe) ? recipe : {};
  const model = isObject(whole.model) ? whole.model : {};
  const strategy = align === "same" ? (model.alignment_strategy ?? "first") : align;
  const updated = { ...model, is_do_alignment: align !== "same", alignment_strategy: strategy };
  return `${JSON.stringify({ ...whole, model: updated }, null, 2)}\n`;
}
