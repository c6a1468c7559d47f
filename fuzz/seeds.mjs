// Seeds of the libFuzzer targets, in the formats that the targets' first comments describe.

const I64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(value));
  return bytes;
};
const U16 = (value) => Buffer.from([value & 0xff, value >> 8]);
const DTYPES = ["F32", "BF16", "F16", "F64", "I8", ""];

function table(wanted, sizes, entries) {
  const content = Buffer.from(Array.from({ length: Math.max(0, ...sizes) }, (_, i) => i & 0xff));
  const entry = ({ name, dtype, shape, file = 0, begin, end }) =>
    Buffer.concat([
      Buffer.from([name, DTYPES.indexOf(dtype), shape.length]),
      ...shape.map(I64),
      Buffer.from([file]),
      I64(begin),
      I64(end),
    ]);
  return Buffer.concat([
    Buffer.from([wanted, sizes.length]),
    ...sizes.map(U16),
    Buffer.from([entries.length]),
    ...entries.map(entry),
    content,
  ]);
}

const I16 = (value) => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16LE(value);
  return bytes;
};
const FORMS = ["plain", "int8", "int4"];

/** A cache of one layer, one head of four values, float32; `begins`: of rows, keys, key_scales, values, value_scales. */
function cache(rows, tokens, positions, parts, bytes) {
  const part = ({ form, rows: count, skip = 0, begins }) =>
    Buffer.concat([Buffer.from([FORMS.indexOf(form), 1]), ...[count, skip, ...begins].map(I16)]);
  return Buffer.concat([
    Buffer.from([0, 0, 1, 0]),
    ...[rows, tokens, positions].map(I16),
    Buffer.from([parts.length]),
    ...parts.map(part),
    Buffer.alloc(bytes, 1),
  ]);
}

/** Inputs by target. */
export const seeds = {
  cache_file_fuzz: [
    cache(0, 0, 0, [], 0),
    cache(2, 64, 72, [{ form: "plain", rows: 2, begins: [0, 0, 0, 0, 0] }], 80),
    cache(2, 0, 0, [{ form: "int8", rows: 2, skip: 1, begins: [0, 28, 0, 40, 16] }], 64),
    cache(2, 0, 0, [{ form: "int4", rows: 2, begins: [0, 24, 0, 56, 16] }], 96),
    cache(
      3,
      0,
      0,
      [
        { form: "plain", rows: 1, begins: [0, 0, 0, 0, 0] },
        { form: "int8", rows: 2, begins: [0, 24, 0, 40, 16] },
      ],
      64,
    ),
  ],
  tensor_table_fuzz: [
    table(0, [], []),
    table(0, [24], [{ name: 0, dtype: "F32", shape: [2, 3], begin: 0, end: 24 }]),
    table(1, [24], [{ name: 0, dtype: "F32", shape: [2, 3], begin: 0, end: 24 }]),
    table(1, [9], [{ name: 0, dtype: "BF16", shape: [2, 2], begin: 1, end: 9 }]),
    table(
      0,
      [40],
      [
        { name: 0, dtype: "F32", shape: [4], begin: 0, end: 16 },
        { name: 1, dtype: "F64", shape: [], begin: 16, end: 24 },
        { name: 2, dtype: "F16", shape: [8], begin: 24, end: 40 },
      ],
    ),
    table(
      0,
      [16, 8],
      [
        { name: 0, dtype: "F32", shape: [4], begin: 0, end: 16 },
        { name: 1, dtype: "F32", shape: [2], file: 1, begin: 0, end: 8 },
        { name: 2, dtype: "F32", shape: [0, 7], file: 1, begin: 8, end: 8 },
      ],
    ),
  ],
};
