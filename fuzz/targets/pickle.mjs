// The restricted unpickler: any bytes are read or refused by name, and nothing is ever called.
import { PickleGlobal, PickleStorage, PickleTensor, readPickle } from "../../dist/weights/pickle.js";
import { writePickle } from "../../dist/weights/pickle-writer.js";
import { expect } from "../expect.mjs";
import { mutateBytes } from "../mutate.mjs";

export const codes = ["FILE_INVALID"];
export const watched = ["dist/weights/pickle.js"];

const text = (value) => [0x8c, value.length, ...Buffer.from(value)];
/** Whole opcodes of the format, so that changes keep a pickle's grammar. */
const OPERATIONS = [
  ...[[0x80, 2], [0x28], [0x29], [0x4e], [0x51], [0x52], [0x5d], [0x61], [0x62], [0x65], [0x73], [0x74], [0x75]],
  ...[[0x7d], [0x85], [0x86], [0x87], [0x88], [0x89], [0x93], [0x94], [0x4b, 1], [0x4d, 1, 0], [0x4a, 0, 0, 0, 128]],
  ...[
    [0x71, 0],
    [0x71, 1],
    [0x68, 0],
    [0x68, 1],
    [0x6a, 0, 0, 0, 0],
    [0x72, 1, 0, 0, 0],
  ],
  ...[
    [0x8a, 8, 255, 255, 255, 255, 255, 255, 31, 0],
    [0x8a, 0],
    [0x47, 63, 240, 0, 0, 0, 0, 0, 0],
  ],
  [0x95, 8, 0, 0, 0, 0, 0, 0, 0],
  [...text("collections"), ...text("OrderedDict"), 0x93],
  [...text("torch"), ...text("FloatStorage"), 0x93],
  text("storage"),
  // A pair of what is on the top, twice over: sizes double without the pickle growing.
  [0x94, 0x68, 0, 0x68, 0, 0x86],
  [0x71, 0, 0x68, 0, 0x86],
  [...Buffer.from("cbuiltins\neval\n")],
  [0x2e],
];

export function seeds() {
  const tensor = (name, shape) => ({ name, storage: "FloatStorage", key: "0", shape });
  return [
    writePickle([]),
    writePickle([tensor("a", [2, 3])]),
    writePickle([tensor("a", []), tensor("b", [2 ** 33]), { ...tensor("é", [0, 4]), storage: "BFloat16Storage" }]),
    Uint8Array.from([0x80, 4, 0x7d, 0x94, ...text("a"), 0x4b, 1, 0x73, 0x2e]),
    Uint8Array.from([0x80, 2, 0x5d, 0x28, 0x88, 0x4e, 0x65, 0x2e]),
  ];
}

export function mutate(bytes, random, others, limit) {
  if (random.oneIn(2)) return mutateBytes(bytes, random, others, limit);
  let out = [...bytes];
  for (let i = 1 + random.below(3); i > 0; i--) {
    const operation = random.pick(OPERATIONS);
    const times = random.oneIn(4) ? 1 + random.below(40) : 1;
    const at = random.oneIn(2) ? Math.max(0, out.length - 1) : random.below(out.length + 1);
    out = [...out.slice(0, at), ...Array.from({ length: times }, () => operation).flat(), ...out.slice(at)];
  }
  return Uint8Array.from(out.slice(0, limit));
}

export function run(bytes) {
  const value = readPickle(bytes, "fuzz");
  const known = [Map, Array, PickleGlobal, PickleStorage, PickleTensor];
  const plain = value === null || ["string", "number", "boolean"].includes(typeof value);
  expect(plain || known.some((kind) => value instanceof kind), "a plain value");
}
