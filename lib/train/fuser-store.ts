import type { NativeFuserTrainer, TensorEntry } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { type FuserFolder, projectorPrefix } from "../fuser/folder-types.js";
import { projectorKind } from "../fuser/projectors/index.js";
import type { Pair } from "../types.js";
import { elements } from "../weights/dtypes.js";
import { readEntryBytes } from "../weights/read.js";
import type { CheckedFuserRecipe } from "./fuser-recipe.js";

/** The projectors that a recipe asks for, in the order of receiver layers. */
export function projectorsOf({
  kind,
  options,
  layerMap,
}: Pick<CheckedFuserRecipe, "kind" | "options" | "layerMap">): FuserFolder["projectors"] {
  const fused = layerMap.flatMap((sharerLayer, receiverLayer) =>
    sharerLayer === null ? [] : [{ receiverLayer, sharerLayer }],
  );
  return fused.map((layers, i) => ({ kind, options, ...layers, prefix: projectorPrefix(i) }));
}

/** A fuser in training as a folder would hold it, in float32; its bytes are read from the trainer. */
export function trainedFolder(
  pair: Pair,
  recipe: CheckedFuserRecipe,
  described: unknown,
  trainer: Pick<NativeFuserTrainer, "parameters" | "read">,
): FuserFolder {
  const tensors: TensorEntry[] = trainer.parameters().map(({ name, shape }) => {
    return { name, dtype: "F32", shape, file: 0, begin: 0, end: 4 * elements(shape) };
  });
  const heads = ({ shape }: Pair["receiver"]) => ({ kvHeads: shape.kvHeads, headDim: shape.headDim });
  return {
    kind: projectorKind(recipe.kind).kind,
    projectors: projectorsOf(recipe),
    receiver: heads(pair.receiver),
    sharer: heads(pair.sharer),
    table: { files: [], tensors },
    align: recipe.align,
    recipe: described,
    read: async (name) => {
      const values = await trainer.read("value", name);
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    },
  };
}

/** The same with all bytes in memory, for when the trainer is gone. */
export async function keepFolder(folder: FuserFolder): Promise<FuserFolder> {
  const bytes = new Map<string, Uint8Array>();
  for (const { name } of folder.table.tensors) {
    const data = await folder.read?.(name);
    if (data) bytes.set(name, data);
  }
  return { ...folder, read: async (name) => bytes.get(name) ?? new Uint8Array() };
}

/** A weight of a fuser, widened to float32. Errors: SHAPE_MISMATCH, IO_FAILED, FILE_INVALID. */
export async function readWeight(folder: FuserFolder, name: string): Promise<Float32Array> {
  const entry = folder.table.tensors.find((tensor) => tensor.name === name);
  if (!entry)
    throw new C2CError(
      "SHAPE_MISMATCH",
      { tensor: name, expected: ["a tensor"], actual: [] },
      `tensor ${name} is missing`,
    );
  const bytes = Uint8Array.from(folder.read ? await folder.read(name) : await readEntryBytes(folder.table, entry));
  switch (entry.dtype) {
    case "F32":
      return new Float32Array(bytes.buffer);
    case "F64":
      return Float32Array.from(new Float64Array(bytes.buffer));
    case "BF16":
      return new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16).buffer);
    case "F16":
      return Float32Array.from(new Uint16Array(bytes.buffer), halfToNumber);
  }
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 0) return sign * fraction * 2 ** -14;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction) * 2 ** (exponent - 15);
}
