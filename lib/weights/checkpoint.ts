import { basename } from "node:path";
import type { TensorEntry } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { writeAtomic } from "./atomic.js";
import { elements, type WeightDType, WIDTHS } from "./dtypes.js";
import { invalid, withFile } from "./file.js";
import { PickleTensor, readPickle } from "./pickle.js";
import { writePickle } from "./pickle-writer.js";
import { type TensorData, tensorBytes } from "./safetensors.js";
import { readMember, readZip, type ZipEntry, zipChunks } from "./zip.js";

const STORAGE_NAMES: Readonly<Record<WeightDType, string>> = {
  F32: "FloatStorage",
  BF16: "BFloat16Storage",
  F16: "HalfStorage",
  F64: "DoubleStorage",
};
const DTYPES: ReadonlyMap<string, WeightDType> = new Map(
  (["F32", "BF16", "F16", "F64"] as const).map((dtype) => [`torch.${STORAGE_NAMES[dtype]}`, dtype]),
);

/**
 * The tensors of a PyTorch checkpoint (a zip with a pickled state_dict), in its order, with absolute byte offsets; `file` is 0.
 * No code in the file is run. Errors: IO_FAILED; FILE_INVALID for foreign globals, tensors that are not contiguous, and lies;
 * UNSUPPORTED for compressed tensors, big-endian files and the old format that is no zip.
 */
export async function readCheckpoint(path: string): Promise<TensorEntry[]> {
  return await withFile(path, async (handle, size) => {
    const members = await readZip(handle, path, size);
    const pickles = [...members.values()].filter((member) => /^[^/]+\/data\.pkl$/.test(member.name));
    const [pickle] = pickles;
    if (!pickle || pickles.length > 1) throw invalid(path, `holds ${pickles.length} members data.pkl, one expected`);
    const root = pickle.name.slice(0, -"data.pkl".length);
    const order = members.get(`${root}byteorder`);
    if (order && new TextDecoder().decode(await readMember(handle, path, order)).trim() !== "little") {
      throw new C2CError(
        "UNSUPPORTED",
        { what: "big-endian checkpoints", supported: ["little"] },
        `${path}: not little-endian`,
      );
    }
    const state = readPickle(await readMember(handle, path, pickle), path);
    if (!(state instanceof Map)) throw invalid(path, "holds no state_dict");
    return [...state].map(([name, value]) => toEntry(path, members, root, name, value));
  });
}

function toEntry(
  path: string,
  members: Map<string, ZipEntry>,
  root: string,
  name: unknown,
  value: unknown,
): TensorEntry {
  if (typeof name !== "string") throw invalid(path, "the state_dict has a key that is no string");
  if (!(value instanceof PickleTensor)) throw invalid(path, `${name} is no tensor`);
  const { storage, offset, shape, strides } = value;
  const dtype = DTYPES.get(storage.type);
  if (!dtype) throw invalid(path, `${name} has the storage ${storage.type}`);
  const member = members.get(`${root}data/${storage.key}`);
  if (!member) throw invalid(path, `the data of ${name} is missing`);
  if (!member.stored) {
    throw new C2CError(
      "UNSUPPORTED",
      { what: "compressed tensors", supported: ["stored"] },
      `${path}: ${name} is compressed`,
    );
  }
  const width = WIDTHS[dtype];
  if (member.size !== storage.elements * width) {
    throw invalid(path, `the data of ${name} has ${member.size} bytes, ${storage.elements * width} expected`);
  }
  const count = elements(shape);
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const dimension = shape[axis] ?? 0;
    if (count > 0 && dimension !== 1 && strides[axis] !== step) throw invalid(path, `${name} is not contiguous`);
    step *= dimension;
  }
  if (offset + count > storage.elements) throw invalid(path, `${name} reaches past its storage`);
  const begin = member.begin + offset * width;
  return { name, dtype, shape, file: 0, begin, end: begin + count * width };
}

/** Writes a checkpoint that torch.load reads, whole or not at all. Errors: IO_FAILED; UNSUPPORTED past 4 GiB. */
export async function writeCheckpoint(path: string, tensors: readonly TensorData[]): Promise<void> {
  const root = basename(path).replace(/\.[^.]*$/, "") || "archive";
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  const pickle = writePickle(
    tensors.map(({ name, dtype, shape }, i) => ({ name, storage: STORAGE_NAMES[dtype], key: String(i), shape })),
  );
  const members = [
    { name: `${root}/data.pkl`, data: pickle },
    { name: `${root}/byteorder`, data: text("little") },
    ...tensors.map((tensor, i) => ({ name: `${root}/data/${i}`, data: () => tensorBytes(path, tensor) })),
    { name: `${root}/version`, data: text("3\n") },
  ];
  await writeAtomic(path, zipChunks(path, members));
}
