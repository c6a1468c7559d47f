// The reader of caches' headers: what it accepts describes tensors that the file has, of the shapes that its layout asks for.
import { inspectCache, partTensors, readCacheHeader, writeHeader } from "../../dist/cache/file.js";
import { withFile } from "../../dist/weights/file.js";
import { expect } from "../expect.mjs";
import { mutateBytes, mutateJson } from "../mutate.mjs";
import { file } from "./safetensors.mjs";

export const codes = ["FILE_INVALID"];
export const watched = ["dist/cache/file.js", "dist/weights/safetensors.js"];
const WORDS = [
  "plain",
  "int8",
  "int4",
  "F32",
  "U8",
  "U32",
  "0.rows",
  "1.keys",
  "tokens",
  "rows",
  "skip",
  "layout",
  "sinks",
];
const NESTED = ["model", "layout", "group", "fused", "room"];

function seed(parts, tensors, extra = {}) {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const header = {
    model: { name: "m", fingerprint: "sha256:0" },
    dtype: "float32",
    layout: { layers: 1, kvHeads: 1, headDim: 4, rows, parts },
    fused: [],
    room: { capacity: null, policy: null },
    ...extra,
  };
  const ids = ["tokens", "positions"].map((name) => ({ name, dtype: "U32", shape: [rows] }));
  const all = [...tensors, ...ids];
  const { bytes } = writeHeader(header, { parts, tensors: all });
  const widths = { F32: 4, U32: 4, BF16: 2, U8: 1 };
  const size = all.reduce((sum, { dtype, shape }) => sum + widths[dtype] * shape.reduce((a, b) => a * b, 1), 0);
  return Uint8Array.from(Buffer.concat([bytes, Buffer.alloc(size, 1)]));
}

export function seeds() {
  const plain = { name: "0.rows", dtype: "F32", shape: [1, 2, 3, 1, 4] };
  const quantized = (i, rows, bytes) => [
    { name: `${i}.key_scales`, dtype: "BF16", shape: [1, Math.ceil(rows / 32), 2, 4] },
    { name: `${i}.value_scales`, dtype: "BF16", shape: [1, rows, 2, 1] },
    { name: `${i}.keys`, dtype: "U8", shape: [1, rows, bytes] },
    { name: `${i}.values`, dtype: "U8", shape: [1, rows, bytes] },
  ];
  const whole = { form: "plain", rows: 3, skip: 0 };
  const fused = [
    { kind: "c2c", fuser: "sha256:1", sharer: { name: "s", fingerprint: "sha256:2" }, rows: [{ start: 0, end: 2 }] },
  ];
  return [
    seed([], []),
    seed([whole], [plain]),
    seed([whole], [plain], { fused, room: { capacity: 8, policy: { kind: "sinks", sinks: 2 } } }),
    seed([{ form: "int8", rows: 2, skip: 1 }], quantized(0, 3, 4)),
    seed([whole, { form: "int4", rows: 3, skip: 0 }], [plain, ...quantized(1, 3, 16)]),
  ];
}

export function mutate(bytes, random, others, limit) {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(Buffer.from(bytes.subarray(8, 8 + length)).toString());
    const nested = random.pick(NESTED);
    if (random.oneIn(2))
      header.__metadata__[nested] = JSON.stringify(mutateJson(JSON.parse(header.__metadata__[nested]), random, WORDS));
    else Object.assign(header, mutateJson(header, random, WORDS));
    const data = Math.min(4096, Math.max(0, bytes.length - 8 - length + (random.oneIn(4) ? random.below(17) - 8 : 0)));
    return file(header, data);
  } catch {
    return mutateBytes(bytes, random, others, limit);
  }
}

export async function run(bytes, path) {
  const read = await withFile(path, (handle, size) => readCacheHeader(handle, path, size));
  const { length, parts } = await inspectCache(path);
  expect(parts.reduce((sum, { rows }) => sum + rows, 0) === length, "parts add up");
  const digits = Buffer.from(bytes.subarray(read.checksumAt, read.checksumAt + 16)).toString();
  expect(digits === read.checksum, "the checksum is where it is said to be");
  const names = ["tokens", "positions", ...read.layout.parts.flatMap((part, i) => partTensors(i, part))];
  for (const name of names) {
    const tensor = read.tensors.get(name);
    expect(tensor !== undefined && tensor.end <= bytes.length, "its tensors are in the file");
  }
  expect(names.length === read.tensors.size, "and no others");
}
