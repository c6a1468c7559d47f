import type { FileHandle } from "node:fs/promises";
import type { TensorEntry } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { writeAtomic } from "./atomic.js";
import { elements, type WeightDType, WIDTHS } from "./dtypes.js";
import { invalid, isObject, parseObject, readRange, withFile } from "./file.js";

const MAX_HEADER = 100_000_000;
const OTHER_DTYPES = [
  "BOOL",
  "U8",
  "I8",
  "U16",
  "I16",
  "U32",
  "I32",
  "U64",
  "I64",
  "F8_E5M2",
  "F8_E4M3",
  "F8_E8M0",
  "F4",
  "C64",
];

/** A tensor to be written: row-major little-endian bytes, or a function that fetches them when their turn comes. */
export interface TensorData {
  readonly name: string;
  readonly dtype: WeightDType;
  readonly shape: readonly number[];
  readonly data: Uint8Array | (() => Promise<Uint8Array>);
}

/** A tensor of a header: absolute byte offsets, `file` is 0. */
export type HeaderTensor<D extends string> = Omit<TensorEntry, "dtype"> & { readonly dtype: D };

/** What a safetensors file says: its tensors and its metadata. */
export interface SafetensorsHeader<D extends string = WeightDType> {
  readonly tensors: HeaderTensor<D>[];
  readonly metadata: Record<string, string>;
}

/**
 * Reads and checks the header of a safetensors file; no tensor is read. Tensors come in the order of their bytes.
 * Errors: IO_FAILED; FILE_INVALID when the header lies; UNSUPPORTED for element types that weights here cannot have.
 */
export async function readSafetensors(path: string): Promise<SafetensorsHeader> {
  return await withFile(path, async (handle, size) => (await readHeader(handle, path, size, WIDTHS)).header);
}

/** The same of an open file, with its own element types and their widths in bytes; `bytes`: the file up to its first tensor. */
export async function readHeader<D extends string>(
  handle: FileHandle,
  path: string,
  size: number,
  widths: Readonly<Record<D, number>>,
): Promise<{ readonly header: SafetensorsHeader<D>; readonly bytes: Uint8Array }> {
  if (size < 8) throw invalid(path, `${size} bytes are too few for a header`);
  const first = await readRange(handle, path, 0, 8);
  const length = new DataView(first.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER)) throw invalid(path, `header of ${length} bytes is larger than ${MAX_HEADER}`);
  const start = 8 + Number(length);
  if (start > size) throw invalid(path, `header ends at byte ${start}, the file at ${size}`);
  const bytes = await readRange(handle, path, 0, start);
  const { __metadata__: metadata, ...entries } = parseObject(decodeUtf8(bytes.subarray(8), path), path);
  const tensors = Object.entries(entries).map(([name, entry]) => readEntry(path, name, entry, start, widths));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = start;
  for (const tensor of tensors) {
    if (tensor.begin !== at)
      throw invalid(path, `tensor ${tensor.name} begins at ${tensor.begin - start}, not at ${at - start}`);
    at = tensor.end;
  }
  if (at !== size) throw invalid(path, `tensors end at byte ${at}, the file at ${size}`);
  return { header: { tensors, metadata: readMetadata(path, metadata) }, bytes };
}

function decodeUtf8(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalid(path, "header is not UTF-8");
  }
}

function readMetadata(path: string, value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw invalid(path, "__metadata__ is not an object");
  const entries = Object.entries(value).map(([key, text]): [string, string] => {
    if (typeof text !== "string") throw invalid(path, `__metadata__.${key} is not a string`);
    return [key, text];
  });
  return Object.fromEntries(entries); // not by assignment, which would lose a key "__proto__"
}

function isOneOf<D extends string>(dtype: string, widths: Readonly<Record<D, number>>): dtype is D {
  return Object.hasOwn(widths, dtype);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readEntry<D extends string>(
  path: string,
  name: string,
  entry: unknown,
  start: number,
  widths: Readonly<Record<D, number>>,
): HeaderTensor<D> {
  if (!isObject(entry)) throw invalid(path, `tensor ${name} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string") throw invalid(path, `tensor ${name} has no dtype`);
  if (!isOneOf(dtype, widths)) {
    if (!OTHER_DTYPES.includes(dtype)) throw invalid(path, `tensor ${name} has unknown dtype ${dtype}`);
    const what = `dtype ${dtype} of tensor ${name}`;
    throw new C2CError("UNSUPPORTED", { what, supported: Object.keys(widths) }, `${path}: ${what} is not supported`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) throw invalid(path, `tensor ${name} has no valid shape`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw invalid(path, `tensor ${name} has no valid data_offsets`);
  }
  const [begin, end] = offsets as [number, number];
  const bytes = elements(shape) * widths[dtype];
  if (end - begin !== bytes)
    throw invalid(path, `tensor ${name} takes ${bytes} bytes, its offsets give ${end - begin}`);
  return { name, dtype, shape, file: 0, begin: start + begin, end: start + end };
}

/** Writes a safetensors file whole or not at all. Errors: IO_FAILED. */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorData[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeAtomic(path, safetensorsChunks(path, tensors, metadata));
}

async function* safetensorsChunks(
  path: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> | undefined,
): AsyncGenerator<Uint8Array> {
  yield headerBytes(tensors, WIDTHS, metadata);
  for (const tensor of tensors) yield await tensorBytes(path, tensor);
}

/** A file up to its first tensor, padded to a multiple of `align` bytes. Tensors follow one another in the given order. */
export function headerBytes<D extends string>(
  tensors: readonly { readonly name: string; readonly dtype: D; readonly shape: readonly number[] }[],
  widths: Readonly<Record<D, number>>,
  metadata: Readonly<Record<string, string>> | undefined,
  align = 8,
): Uint8Array {
  // Joined by hand: plain objects would move names that look like numbers to the front.
  const parts: string[] = metadata ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  let at = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = at + elements(shape) * widths[dtype];
    parts.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [at, end] })}`);
    at = end;
  }
  const text = new TextEncoder().encode(`{${parts.join(",")}}`);
  const header = new Uint8Array(Math.ceil((8 + text.length) / align) * align).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(text, 8);
  return header;
}

/** A tensor's bytes, checked against its shape. Errors: FILE_INVALID, and what its fetching throws. */
export async function tensorBytes(path: string, tensor: TensorData): Promise<Uint8Array> {
  const data = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
  const bytes = elements(tensor.shape) * WIDTHS[tensor.dtype];
  if (data.length !== bytes) throw invalid(path, `tensor ${tensor.name} takes ${bytes} bytes, ${data.length} given`);
  return data;
}
