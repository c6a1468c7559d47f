import { join } from "node:path";
import * as v from "valibot";
import { C2CError } from "../errors.js";
import { writeAtomic } from "../weights/atomic.js";
import { invalid, parseObject, readText } from "../weights/file.js";
import { readEntryBytes } from "../weights/read.js";
import { readSafetensors, type TensorData, writeSafetensors } from "../weights/safetensors.js";
import { type FuserFolder, projectorPrefix } from "./folder-types.js";
import { c2c } from "./projectors/c2c.js";
import { projectorKind, projectorOptions } from "./projectors/index.js";

/** The file that marks a folder as a fuser of this package's own format. */
export const MANIFEST = "fuser.json";
/** The file with its weights. */
export const WEIGHTS = "fuser.safetensors";
const VERSION = 1;

const layer = v.pipe(v.number(), v.integer(), v.minValue(0));
const size = v.pipe(v.number(), v.integer(), v.minValue(1));
const heads = v.object({ kvHeads: size, headDim: size });
const manifest = v.object({
  version: v.number(),
  projector: v.string(),
  receiver: heads,
  sharer: heads,
  align: v.picklist(["same", "first", "longest", "bytes"]),
  projectors: v.pipe(
    v.array(
      v.object({
        receiverLayer: layer,
        sharerLayer: layer,
        weights: v.string(),
        options: v.record(v.string(), v.unknown()),
      }),
    ),
    v.minLength(1),
  ),
  recipe: v.optional(v.unknown(), null),
});

/** Reads `fuser.json` and the header of `fuser.safetensors`. Errors: IO_FAILED, FILE_INVALID, UNSUPPORTED. */
export async function readNative(folder: string): Promise<FuserFolder> {
  const path = join(folder, MANIFEST);
  const parsed = v.safeParse(manifest, parseObject(await readText(path), path));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw invalid(path, `key ${v.getDotPath(issue) ?? "?"}: ${issue.message}`);
  }
  const { version, projector, receiver, sharer, align, projectors, recipe } = parsed.output;
  if (version !== VERSION) {
    throw new C2CError(
      "UNSUPPORTED",
      { what: `fuser format version ${version}`, supported: [String(VERSION)] },
      `${path}: version ${version}`,
    );
  }
  const file = join(folder, WEIGHTS);
  const { tensors } = await readSafetensors(file);
  const specs = projectors.map(({ receiverLayer, sharerLayer, weights, options }) => ({
    kind: projector,
    receiverLayer,
    sharerLayer,
    options: projectorOptions(projector, options),
    prefix: `${weights}.`,
  }));
  for (const [i, { receiverLayer, prefix }] of specs.entries()) {
    const before = specs[i - 1];
    if (before && before.receiverLayer >= receiverLayer)
      throw invalid(path, "projectors are not in the order of receiver layers");
    if (!tensors.some(({ name }) => name.startsWith(prefix)))
      throw invalid(file, `holds no weights of ${prefix.slice(0, -1)}`);
  }
  const extra = tensors.find(({ name }) => !specs.some(({ prefix }) => name.startsWith(prefix)));
  if (extra) throw invalid(file, `tensor ${extra.name} belongs to no projector`);
  const { kind } = projectorKind(projector);
  return { kind, projectors: specs, receiver, sharer, table: { files: [file], tensors }, align, recipe };
}

/** Writes the two files into an empty folder. Errors: IO_FAILED, FILE_INVALID. */
export async function writeNative(fuser: FuserFolder, folder: string): Promise<void> {
  const { projectors, receiver, sharer, align, recipe } = fuser;
  const content = {
    version: VERSION,
    projector: projectors[0]?.kind ?? c2c.class,
    receiver,
    sharer,
    align,
    projectors: numbered(projectors).map(({ spec, index }) => ({
      receiverLayer: spec.receiverLayer,
      sharerLayer: spec.sharerLayer,
      weights: projectorPrefix(index).slice(0, -1),
      options: spec.options,
    })),
    recipe,
  };
  const tensors = weightGroups(fuser).flatMap(({ index, tensors }) =>
    tensors.map((tensor) => ({ ...tensor, name: projectorPrefix(index) + tensor.name })),
  );
  await writeSafetensors(join(folder, WEIGHTS), tensors, { format: "pt" });
  await writeAtomic(join(folder, MANIFEST), `${JSON.stringify(content, null, 2)}\n`);
}

/** Projectors with the number that their weights get: one for each prefix, in order. */
export function numbered(
  projectors: FuserFolder["projectors"],
): { spec: FuserFolder["projectors"][number]; index: number }[] {
  const prefixes = [...new Set(projectors.map(({ prefix }) => prefix))];
  return projectors.map((spec) => ({ spec, index: prefixes.indexOf(spec.prefix) }));
}

/** The weights of each numbered projector, under their names in its state_dict. Bytes are read when asked for. */
export function weightGroups(fuser: FuserFolder): { index: number; prefix: string; tensors: TensorData[] }[] {
  const { table, projectors } = fuser;
  return [...new Set(projectors.map(({ prefix }) => prefix))].map((prefix, index) => ({
    index,
    prefix,
    tensors: table.tensors
      .filter(({ name }) => name.startsWith(prefix))
      .map((entry) => ({
        name: entry.name.slice(prefix.length),
        dtype: entry.dtype,
        shape: entry.shape,
        data: () => fuser.read?.(entry.name) ?? readEntryBytes(table, entry),
      })),
  }));
}
