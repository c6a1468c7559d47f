import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { writeAtomic } from "../dist/weights/atomic.js";
import { modelTable } from "../dist/weights/folder.js";
import { readTensor } from "../dist/weights/read.js";
import { readSafetensors, writeSafetensors } from "../dist/weights/safetensors.js";
import { fails } from "./support.mjs";

const test = suite("safetensors");
let folder = "";
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-safetensors-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

/** A file with this header (text or object) and this many bytes of data. */
async function lying(header, bytes = 0, length = undefined) {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(length ?? text.length));
  const path = join(folder, "model.safetensors");
  await writeFile(path, Buffer.concat([size, text, Buffer.alloc(bytes)]));
  return path;
}

test("a file is read back as it was written", async () => {
  const path = join(folder, "model.safetensors");
  const data = Uint8Array.from({ length: 12 }, (_, i) => i);
  const tensors = [
    { name: "b", dtype: "BF16", shape: [2, 3], data },
    { name: "7", dtype: "F32", shape: [], data: async () => data.subarray(0, 4) },
    { name: "empty", dtype: "F16", shape: [0, 4], data: new Uint8Array(0) },
  ];
  await writeSafetensors(path, tensors, { format: "pt" });
  const { tensors: read, metadata } = await readSafetensors(path);
  assert.equal(metadata, { format: "pt" });
  assert.equal(
    read.map(({ name, shape }) => [name, shape]),
    [
      ["b", [2, 3]],
      ["7", []],
      ["empty", [0, 4]],
    ],
  );
  assert.is(read[0].begin % 8, 0);
  assert.equal((await readTensor(await modelTable(folder), "b")).data, data);
  assert.equal(await readdir(folder), ["model.safetensors"]);
  await fails(readTensor({ files: [path], tensors: read }, "c"), "SHAPE_MISMATCH");
});

const entry = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
const lies = {
  "too short for a header": () => writeFile(join(folder, "model.safetensors"), "abc"),
  "a header longer than the file": () => lying({}, 0, 1000),
  "larger than 100000000": () => lying({}, 0, 100_000_001),
  "not JSON": () => lying("{oh"),
  "not a JSON object": () => lying("[]"),
  "no valid shape": () => lying({ a: { ...entry, shape: [-2] } }, 8),
  "unknown dtype": () => lying({ a: { ...entry, dtype: "F33" } }, 8),
  "no dtype": () => lying({ a: { shape: [2], data_offsets: [0, 8] } }, 8),
  "no valid data_offsets": () => lying({ a: { ...entry, data_offsets: [0] } }, 8),
  "takes 8 bytes": () => lying({ a: { ...entry, data_offsets: [0, 12] } }, 12),
  "begins at 4": () => lying({ a: { ...entry, data_offsets: [4, 12] } }, 12),
  "begins at 4, not at 8": () => lying({ a: entry, b: { ...entry, data_offsets: [4, 12] } }, 12),
  "the file at": () => lying({ a: entry }, 4),
  "tensors end at byte": () => lying({ a: entry }, 9),
  "is not a string": () => lying({ __metadata__: { a: 1 }, a: entry }, 8),
  "not described by an object": () => lying({ a: 3 }),
};
for (const [reason, write] of Object.entries(lies)) {
  test(`FILE_INVALID: ${reason}`, async () => {
    await write();
    const pattern = reason.startsWith("too short")
      ? /too few/
      : reason.startsWith("a header")
        ? /header ends/
        : new RegExp(reason);
    await fails(readSafetensors(join(folder, "model.safetensors")), "FILE_INVALID", pattern);
  });
}

test("element types that weights cannot have are UNSUPPORTED", async () => {
  await fails(readSafetensors(await lying({ a: { ...entry, dtype: "I64", shape: [1] } }, 8)), "UNSUPPORTED", /I64/);
});

test("what the system refuses is IO_FAILED", async () => {
  await fails(readSafetensors(join(folder, "none")), "IO_FAILED", /ENOENT/);
  await fails(readSafetensors(folder), "IO_FAILED", /EISDIR/);
  await fails(modelTable(join(folder, "none")), "IO_FAILED", /ENOENT/);
  await fails(modelTable(folder), "IO_FAILED", /ENOENT/);
  await fails(writeAtomic(join(folder, "none", "x"), "text"), "IO_FAILED", /ENOENT/);
});

test("a failed write leaves nothing behind", async () => {
  const path = join(folder, "model.safetensors");
  const data = () => Promise.reject(new RangeError("gone"));
  let thrown;
  await writeSafetensors(path, [{ name: "a", dtype: "F32", shape: [1], data }]).catch((error) => {
    thrown = error;
  });
  assert.instance(thrown, RangeError);
  await fails(
    writeSafetensors(path, [{ name: "a", dtype: "F32", shape: [1], data: new Uint8Array(3) }]),
    "FILE_INVALID",
  );
  assert.equal(await readdir(folder), []);
});

async function shards(map, files = { one: ["a"], two: ["b"] }) {
  for (const [file, names] of Object.entries(files)) {
    const tensors = names.map((name) => ({ name, dtype: "F32", shape: [1], data: new Uint8Array(4) }));
    await writeSafetensors(join(folder, `${file}.safetensors`), tensors);
  }
  await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
  return modelTable(folder);
}

test("shards are one table", async () => {
  const table = await shards({ a: "one.safetensors", b: "two.safetensors" });
  assert.equal(table.files, [join(folder, "one.safetensors"), join(folder, "two.safetensors")]);
  assert.equal(
    table.tensors.map(({ name, file }) => [name, file]),
    [
      ["a", 0],
      ["b", 1],
    ],
  );
});

test("an index that lies is FILE_INVALID", async () => {
  await fails(shards({ a: "one.safetensors", b: "one.safetensors" }), "FILE_INVALID", /b is not in one/);
  await fails(shards({ a: "one.safetensors" }, { one: ["a", "c"] }), "FILE_INVALID", /c is here/);
  await fails(shards({ a: "../one.safetensors" }), "FILE_INVALID", /plain file name/);
  await fails(shards({ a: "..\\one.safetensors" }), "FILE_INVALID", /plain file name/);
  await fails(shards({ a: 3 }), "FILE_INVALID", /weight_map.a/);
  await fails(shards({}), "FILE_INVALID", /empty/);
  await fails(shards(undefined), "FILE_INVALID", /weight_map/);
  await fails(shards({ a: "lost.safetensors" }), "IO_FAILED", /ENOENT/);
});

test("weights of another format are UNSUPPORTED", async () => {
  await writeFile(join(folder, "pytorch_model.bin"), "");
  await fails(modelTable(folder), "UNSUPPORTED", /pytorch_model.bin/);
});

test.run();
