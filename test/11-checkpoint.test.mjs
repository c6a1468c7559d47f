import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unzipSync, zipSync } from "fflate";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readCheckpoint, writeCheckpoint } from "../dist/weights/checkpoint.js";
import { readPickle } from "../dist/weights/pickle.js";
import { fails } from "./support.mjs";

const GOLDENS = new URL("goldens/fusers/", import.meta.url).pathname;
const test = suite("checkpoint");
let folder = "";
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-checkpoint-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

async function contents(path) {
  const bytes = await readFile(path);
  const entries = await readCheckpoint(path);
  return entries.map(({ name, dtype, shape, begin, end }) => ({
    name,
    dtype,
    shape,
    data: new Uint8Array(bytes.subarray(begin, end)),
  }));
}

for (const fuser of ["qwen2", "qwen2_bf16", "llama", "gemma3"]) {
  test(`${fuser}: what is written again reads the same`, async () => {
    const tensors = await contents(join(GOLDENS, fuser, "final/projector_1.pt"));
    assert.is(tensors[0].dtype, fuser.endsWith("bf16") ? "BF16" : "F32");
    assert.equal(tensors.find(({ name }) => name === "gate_temperature").shape, []);
    assert.is(tensors.find(({ name }) => name === "key_in.weight").shape.length, 2);
    const copy = join(folder, "copy.pt");
    await writeCheckpoint(copy, tensors);
    assert.equal(await contents(copy), tensors);
  });
}

test("what is written has the members and the pickle that torch.load expects", async () => {
  const path = join(folder, "weights.pt");
  const data = new Uint8Array(24).fill(1);
  await writeCheckpoint(path, [
    { name: "a", dtype: "F32", shape: [2, 3], data },
    { name: "b", dtype: "BF16", shape: [], data: data.subarray(0, 2) },
  ]);
  const bytes = new Uint8Array(await readFile(path));
  const members = unzipSync(bytes);
  // torch.load takes the archive's one folder for its name and asks for these four.
  assert.equal(
    Object.keys(members).sort(),
    ["byteorder", "data.pkl", "data/0", "data/1", "version"].map((name) => `weights/${name}`),
  );
  assert.is(Buffer.from(members["weights/version"]).toString(), "3\n");
  assert.is(Buffer.from(members["weights/byteorder"]).toString(), "little");
  assert.equal(members["weights/data/0"], data);
  unzipSync(bytes, { filter: ({ compression }) => assert.is(compression, 0) });
  // Opcode by opcode: an OrderedDict, then _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks) for each.
  const int = (value) => `J${String.fromCharCode(value)}\0\0\0`;
  const str = (value) => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
  const dict = "ccollections\nOrderedDict\n)R";
  const item = (name, type, key, size, shape, strides) =>
    `${str(name)}ctorch._utils\n_rebuild_tensor_v2\n((${str("storage")}ctorch\n${type}\n${str(key)}${str("cpu")}${int(size)}tQ` +
    `${int(0)}(${shape.map(int).join("")}t(${strides.map(int).join("")}t\x89${dict}tR`;
  assert.is(
    Buffer.from(members["weights/data.pkl"]).toString("latin1"),
    `\x80\x02${dict}(${item("a", "FloatStorage", "0", 6, [2, 3], [3, 1])}${item("b", "BFloat16Storage", "1", 1, [], [])}u.`,
  );
});

test("numbers are where they should be", async () => {
  const tensors = await contents(join(GOLDENS, "qwen2/final/projector_0.pt"));
  const { data } = tensors.find(({ name }) => name === "gate_temperature");
  const value = new DataView(data.buffer, data.byteOffset).getFloat32(0, true);
  assert.ok(value > 0 && value <= 1, String(value));
});

const storage = (type, key = "0", size = 4) =>
  `(X\x07\0\0\0storagectorch\n${type}\nX\x01\0\0\0${key}X\x03\0\0\0cpuK${String.fromCharCode(size)}tQ`;
const tensor = (shape, strides, type = "FloatStorage", offset = "\0") =>
  `ctorch._utils\n_rebuild_tensor_v2\n(${storage(type)}K${offset}(${shape}t(${strides}t\x89ccollections\nOrderedDict\n)RtR`;
const state = (value) => Buffer.from(`\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0a${value}u.`, "latin1");

async function archive(pickle, options = { level: 0 }, data = Buffer.alloc(16)) {
  const path = join(folder, "odd.pt");
  await writeFile(
    path,
    zipSync({ "x/data.pkl": [pickle, { level: 9 }], "x/data/0": [data, options], "x/version": Buffer.from("3\n") }),
  );
  return path;
}

test("a compressed pickle is read, compressed tensors are not", async () => {
  const pickle = state(tensor("K\x02K\x02", "K\x02K\x01"));
  const [entry] = await readCheckpoint(await archive(pickle));
  assert.equal([entry.name, entry.dtype, entry.shape, entry.end - entry.begin], ["a", "F32", [2, 2], 16]);
  await fails(readCheckpoint(await archive(pickle, { level: 9 })), "UNSUPPORTED", /compressed/);
});

test("foreign globals are refused by name", async () => {
  await fails(
    readCheckpoint(await archive(state("cposix\nsystem\n(X\x02\0\0\0idtR"))),
    "FILE_INVALID",
    /posix\.system/,
  );
  const stacked = Buffer.from("\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "latin1");
  await fails(readCheckpoint(await archive(stacked)), "FILE_INVALID", /builtins\.eval/);
  await fails(
    readCheckpoint(await archive(state(tensor("K\x02", "K\x01", "LongStorage")))),
    "FILE_INVALID",
    /torch\.LongStorage/,
  );
});

test("lies are FILE_INVALID", async () => {
  await fails(
    readCheckpoint(await archive(state(tensor("K\x02K\x02", "K\x01K\x02")))),
    "FILE_INVALID",
    /not contiguous/,
  );
  await fails(readCheckpoint(await archive(state(tensor("K\x05", "K\x01")))), "FILE_INVALID", /past its storage/);
  await fails(
    readCheckpoint(await archive(state(tensor("K\x04", "K\x01", "FloatStorage", "\x01")))),
    "FILE_INVALID",
    /past its storage/,
  );
  await fails(
    readCheckpoint(await archive(state(tensor("K\x04", "K\x01", "DoubleStorage")))),
    "FILE_INVALID",
    /32 expected/,
  );
  await fails(readCheckpoint(await archive(state("K\x01"))), "FILE_INVALID", /a is no tensor/);
  await fails(readCheckpoint(await archive(Buffer.from("\x80\x02K\x01.", "latin1"))), "FILE_INVALID", /state_dict/);
  await fails(readCheckpoint(await archive(Buffer.from("\x80\x02(K\x01", "latin1"))), "FILE_INVALID", /cut short/);
  await fails(readCheckpoint(await archive(Buffer.from("\x80\x02i.", "latin1"))), "FILE_INVALID", /opcode/);
});

test("cut at any place the file is FILE_INVALID", async () => {
  const whole = await readFile(join(GOLDENS, "qwen2/final/projector_0.pt"));
  const path = join(folder, "cut.pt");
  for (const share of [0, 0.1, 0.5, 0.99, 0.9999]) {
    await writeFile(path, whole.subarray(0, Math.floor(whole.length * share)));
    await fails(readCheckpoint(path), "FILE_INVALID");
  }
  await fails(readCheckpoint(join(folder, "none.pt")), "IO_FAILED", /ENOENT/);
});

test("a pickle of random bytes never does more than fail", () => {
  for (let seed = 1; seed < 500; seed++) {
    let x = seed;
    const bytes = Uint8Array.from({ length: 40 }, () => {
      x = (x * 48271) % 0x7fffffff;
      return x & 0xff;
    });
    try {
      readPickle(bytes, "random");
    } catch (error) {
      assert.is(error.code, "FILE_INVALID", error.stack);
    }
  }
});

test.run();
