import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readFuserFolder, writeFuserFolder } from "../dist/fuser/folder.js";
import { projectorOptions } from "../dist/fuser/projectors/index.js";
import { readTensor } from "../dist/weights/read.js";
import { fails } from "./support.mjs";

const GOLDENS = new URL("goldens/", import.meta.url).pathname;
const FUSERS = join(GOLDENS, "fusers");
const PAIR = new URL("../models/pair/fuser", import.meta.url).pathname;
const test = suite("fuser folder");
let folder = "";
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-fuser-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

/** Everything a fuser folder says, its weights' bytes too. */
async function whole(fuser) {
  const { table, ...rest } = fuser;
  const weights = {};
  for (const { name } of table.tensors) {
    const { data, ...facts } = await readTensor(table, name);
    weights[name] = { ...facts, hash: createHash("sha256").update(data).digest("hex") };
  }
  return { ...rest, weights };
}

test("the reference's layout", async () => {
  const fuser = await readFuserFolder(join(FUSERS, "llama"));
  assert.equal([fuser.kind, fuser.align, fuser.table.files.length], ["c2c", "first", 4]);
  assert.equal(
    [fuser.receiver, fuser.sharer],
    [
      { kvHeads: 2, headDim: 32 },
      { kvHeads: 4, headDim: 8 },
    ],
  );
  assert.equal(
    fuser.projectors.map(({ receiverLayer, sharerLayer, prefix }) => [receiverLayer, sharerLayer, prefix]),
    [
      [0, 0, "projector_0."],
      [1, 1, "projector_1."],
      [2, 1, "projector_2."],
      [3, 2, "projector_3."],
    ],
  );
  assert.equal([fuser.projectors[0].options.num_layers, fuser.projectors[0].options.zero_init], [4, false]);
  assert.is((await readFuserFolder(join(FUSERS, "qwen2"))).align, "same");
  assert.equal(await whole(await readFuserFolder(join(FUSERS, "llama/final"))), await whole(fuser));
});

test("the embedded pair's fuser", async () => {
  const { projectors } = await readFuserFolder(PAIR);
  assert.equal(
    projectors.map(({ receiverLayer, sharerLayer }) => [receiverLayer, sharerLayer]),
    [
      [2, 3],
      [3, 4],
    ],
  );
});

for (const name of ["qwen2", "qwen2_bf16", "gemma3"]) {
  test(`${name}: both formats hold the same, bit for bit`, async () => {
    const original = await whole(await readFuserFolder(join(FUSERS, name)));
    await writeFuserFolder(await readFuserFolder(join(FUSERS, name)), join(folder, "native"), "native");
    assert.equal((await readdir(join(folder, "native"))).sort(), ["fuser.json", "fuser.safetensors"]);
    const native = await readFuserFolder(join(folder, "native"));
    assert.equal(await whole(native), original);
    await writeFuserFolder(native, join(folder, "back"), "reference");
    assert.equal(await whole(await readFuserFolder(join(folder, "back"))), original);
    const dtype = JSON.parse(await readFile(join(folder, "back/final/projector_0.json"), "utf8")).init_args.dtype.value;
    assert.is(dtype, name.endsWith("bf16") ? "bfloat16" : "float32");
    assert.equal((await readdir(folder)).sort(), ["back", "native"]);
  });
}

test("a fuser can be replaced, other folders cannot", async () => {
  const fuser = await readFuserFolder(join(FUSERS, "qwen2"));
  await writeFuserFolder(fuser, join(folder, "out"), "native");
  await writeFuserFolder(fuser, join(folder, "out"), "reference");
  assert.is((await readFuserFolder(join(folder, "out"))).align, "same");
  await mkdir(join(folder, "mine"));
  await writeFile(join(folder, "mine/letter.txt"), "dear");
  await fails(writeFuserFolder(fuser, join(folder, "mine"), "native"), "OPTION_INVALID", /other files/);
  assert.equal((await readdir(folder)).sort(), ["mine", "out"]);
});

test("the newest checkpoint stands in for a missing final", async () => {
  await mkdir(join(folder, "run"));
  await cp(join(FUSERS, "llama/final"), join(folder, "run/checkpoint-9"), { recursive: true });
  await cp(join(FUSERS, "qwen2/final"), join(folder, "run/checkpoint-100"), { recursive: true });
  assert.equal((await readFuserFolder(join(folder, "run"))).sharer, { kvHeads: 2, headDim: 8 });
});

/** A copy of a golden fuser that `change` spoils. */
async function spoiled(change) {
  const run = join(folder, "run");
  await rm(run, { recursive: true, force: true });
  await cp(join(FUSERS, "qwen2"), run, { recursive: true });
  await change(join(run, "final"), run);
  return readFuserFolder(run);
}
async function edit(path, change) {
  await writeFile(path, JSON.stringify(change(JSON.parse(await readFile(path, "utf8")))));
}

test("folders that lie", async () => {
  await fails(
    spoiled((final) => rm(join(final, "projector_2.pt"))),
    "FILE_INVALID",
    /projector_2.pt is missing/,
  );
  await fails(
    spoiled((final) => cp(join(final, "projector_2.pt"), join(final, "projector_4.pt"))),
    "FILE_INVALID",
    /projector_4.pt is in no layer/,
  );
  await fails(
    spoiled((final) => rm(join(final, "projector_2.json"))),
    "FILE_INVALID",
    /projector_2.json is missing/,
  );
  await fails(
    spoiled((final) => rename(join(final, "projector_config.json"), join(final, "x.json"))),
    "IO_FAILED",
    /ENOENT/,
  );
  const json = (change) => spoiled((final) => edit(join(final, "projector_1.json"), change));
  await fails(
    json((p) => ({ ...p, class: "ReplaceProjector" })),
    "UNSUPPORTED",
    /ReplaceProjector/,
  );
  await fails(
    json((p) => ({ ...p, class: "AblationProjector" })),
    "FILE_INVALID",
    /differ/,
  );
  await fails(
    json((p) => ({ ...p, init_args: { ...p.init_args, source_dim: 16 } })),
    "FILE_INVALID",
    /differ/,
  );
  await fails(
    json((p) => ({ ...p, init_args: { ...p.init_args, source_dim: undefined } })),
    "FILE_INVALID",
    /source_dim/,
  );
  await fails(
    json((p) => ({ ...p, init_args: { ...p.init_args, magic: 1 } })),
    "UNSUPPORTED",
    /magic/,
  );
  const layers = (change) => spoiled((final) => edit(join(final, "projector_config.json"), change));
  await fails(
    layers(() => ({})),
    "UNSUPPORTED",
    /several models/,
  );
  await fails(
    layers(() => ({ 0: { 1: { 0: [] } } })),
    "FILE_INVALID",
  );
  await fails(
    layers(() => ({ 0: { 1: { zero: [[0, 0]] } } })),
    "FILE_INVALID",
  );
  const recipe = (model) => spoiled((_, run) => writeFile(join(run, "config.json"), JSON.stringify({ model })));
  await fails(recipe({ is_do_alignment: true, alignment_strategy: "shortest" }), "UNSUPPORTED", /shortest/);
  assert.is(
    (
      await spoiled((_, run) =>
        writeFile(join(run, "config.json"), "model:\n  is_do_alignment: true\n  alignment_strategy: longest\n"),
      )
    ).align,
    "longest",
  );
  await fails(readFuserFolder(folder), "FILE_INVALID", /no fuser/);
  await fails(readFuserFolder(join(folder, "none")), "IO_FAILED", /ENOENT/);
});

test("our own format is checked too", async () => {
  const out = join(folder, "native");
  await writeFuserFolder(await readFuserFolder(join(FUSERS, "qwen2")), out, "native");
  const json = join(out, "fuser.json");
  const good = await readFile(json, "utf8");
  const bad = async (change) => {
    await writeFile(json, JSON.stringify(change(JSON.parse(good))));
    return readFuserFolder(out);
  };
  await fails(
    bad((f) => ({ ...f, version: 2 })),
    "UNSUPPORTED",
    /version 2/,
  );
  await fails(
    bad((f) => ({ ...f, align: "none" })),
    "FILE_INVALID",
    /align/,
  );
  await fails(
    bad((f) => ({ ...f, projector: "Other" })),
    "UNSUPPORTED",
    /Other/,
  );
  await fails(
    bad((f) => ({ ...f, projectors: f.projectors.slice(1) })),
    "FILE_INVALID",
    /belongs to no projector/,
  );
  await fails(
    bad((f) => ({ ...f, projectors: f.projectors.toReversed() })),
    "FILE_INVALID",
    /order/,
  );
});

test("options of every recorded projector are understood", async () => {
  const { tests } = JSON.parse(await readFile(join(GOLDENS, "unit.json"), "utf8"));
  for (const { cls, kwargs } of tests) {
    const options = projectorOptions(cls, kwargs);
    for (const [name, value] of Object.entries(kwargs)) assert.is(options[name], value);
  }
  assert.is(projectorOptions("AllInOneProjector", {}).preserve_target_weight, true);
  assert.is(projectorOptions("C2CProjector", { source_dim: 3, dtype: {} }).hidden_dim, 1024);
  assert.throws(
    () => projectorOptions("constructor", {}),
    (error) => error.code === "UNSUPPORTED",
  );
  assert.throws(
    () => projectorOptions("C2CProjector", { num_layers: "3" }),
    (error) => error.code === "OPTION_INVALID",
  );
});

test.run();
