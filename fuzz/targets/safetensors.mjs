// The reader of safetensors headers: what it accepts describes bytes that the file has, each once.
import { WIDTHS } from "../../dist/weights/dtypes.js";
import { readSafetensors } from "../../dist/weights/safetensors.js";
import { expect } from "../expect.mjs";
import { mutateBytes, mutateJson } from "../mutate.mjs";

export const codes = ["FILE_INVALID", "UNSUPPORTED"];
export const watched = ["dist/weights/safetensors.js", "dist/weights/file.js", "dist/weights/dtypes.js"];
const WORDS = [
  "F32",
  "BF16",
  "F16",
  "F64",
  "I8",
  "x",
  "dtype",
  "shape",
  "data_offsets",
  "__metadata__",
  "__proto__",
  "a",
];

/** A file with this header and this many bytes of data. */
export function file(header, bytes) {
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Uint8Array.from(Buffer.concat([size, text, Buffer.alloc(bytes, 1)]));
}

export function seeds() {
  const a = { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] };
  const b = { dtype: "BF16", shape: [4], data_offsets: [24, 32] };
  return [
    file({}, 0),
    file({ a }, 24),
    file({ a, b, __metadata__: { format: "pt" } }, 32),
    file(
      {
        empty: { dtype: "F16", shape: [0, 5], data_offsets: [0, 0] },
        one: { dtype: "F64", shape: [], data_offsets: [0, 8] },
      },
      8,
    ),
    file({ a: { ...a, dtype: "I8" } }, 24),
  ];
}

export function mutate(bytes, random, others, limit) {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(Buffer.from(bytes.subarray(8, 8 + length)).toString());
    const data = Math.min(4096, Math.max(0, bytes.length - 8 - length + (random.oneIn(4) ? random.below(17) - 8 : 0)));
    return file(mutateJson(header, random, WORDS), data);
  } catch {
    return mutateBytes(bytes, random, others, limit);
  }
}

export async function run(bytes, path) {
  const { tensors, metadata } = await readSafetensors(path);
  let at = tensors[0]?.begin ?? bytes.length;
  for (const { name, dtype, shape, file: index, begin, end } of tensors) {
    expect(typeof name === "string" && index === 0, "a name and a file");
    expect(begin === at && end >= begin && end <= bytes.length, "tensors follow one another inside the file");
    const count = shape.reduce((product, size) => product * BigInt(size), 1n);
    expect(count * BigInt(WIDTHS[dtype]) === BigInt(end - begin), "shape and bytes agree");
    at = end;
  }
  expect(at === bytes.length, "the tensors end where the file does");
  for (const value of Object.values(metadata)) expect(typeof value === "string", "metadata are strings");
}
