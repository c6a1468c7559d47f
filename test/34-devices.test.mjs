// Where models, caches and fusers lie: what is asked for, what is there, and what is said where it is not.
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { cacheState } from "../dist/cache/cache.js";
import { deviceFlag } from "../dist/cli/flags.js";
import { checkDevice, deviceName } from "../dist/device.js";
import { connect, isC2CError, loadFuser, loadModel } from "../dist/index.js";
import { prefillTogether } from "../dist/model/forward.js";
import { modelState } from "../dist/model/state.js";
import { native } from "../dist/native.js";
import { absence } from "../dist/setup/cuda.js";
import { gpus } from "../dist/setup/diagnose.js";
import { loadNative } from "../dist/setup/load.js";
import { inspect, libraryName } from "../scripts/libtorch/places.mjs";
import { fails } from "./support.mjs";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const folder = (name) => ({ kind: "folder", path: join(HOME, "models/pair", name) });
const { root } = loadNative().libtorch;
const execute = promisify(execFile);
let receiver;
let sharer;

test.before(async () => {
  [receiver, sharer] = await Promise.all([loadModel(folder("receiver")), loadModel(folder("sharer"))]);
});
test.after(async () => {
  await receiver.dispose();
  await sharer.dispose();
});

test("what is no device is refused before anything is read", async () => {
  const nowhere = { kind: "folder", path: join(HOME, "nowhere") };
  for (const device of [
    { kind: "cuda" },
    { kind: "cuda", index: -1 },
    { kind: "cuda", index: 1.5 },
    { kind: "cuda", index: 128 },
  ])
    await fails(loadModel(nowhere, { device }), "OPTION_INVALID", /"device\.index"/);
  for (const device of ["cuda", 0, null, {}]) await fails(loadModel(nowhere, { device }), "OPTION_INVALID", /"device"/);
  await fails(loadModel(nowhere, { device: { kind: "tpu" } }), "UNSUPPORTED", /device tpu/);
  const quantised = { device: { kind: "cuda", index: 0 }, quantize: "int8" };
  await fails(loadModel(nowhere, quantised), "UNSUPPORTED", /quantize int8 on cuda:0/);
});

test("a device that is not there is UNSUPPORTED, with those that are", async () => {
  const device = { kind: "cuda", index: 126 };
  const error = await loadModel(folder("receiver"), { device }).catch((reason) => reason);
  assert.ok(isC2CError(error, "UNSUPPORTED"), String(error));
  const there = [
    "cpu",
    ...native()
      .devices()
      .map(({ index }) => `cuda:${index}`),
  ];
  assert.equal(error.details, { what: "device cuda:126", supported: there });
  const why =
    inspect(root).variant === "cpu"
      ? /build for the CPU: .*(--variant cu130|CACHE_TO_CACHE_LIBTORCH)/
      : /cuda|CUDA|GPU/;
  assert.match(error.message, /^device cuda:126 is not there: /);
  assert.match(error.message, why);
});

test("which device is refused, and why", () => {
  const one = { index: 0, name: "", memory: 0, kernels: false };
  checkDevice({ kind: "cuda", index: 0 }, { devices: [one], fault: null });
  const refused = (found) => {
    try {
      checkDevice({ kind: "cuda", index: 1 }, found);
    } catch (error) {
      return [error.message, error.details.supported];
    }
    return assert.unreachable("refused");
  };
  assert.equal(refused({ devices: [one], fault: null }), [
    "device cuda:1 is not there: devices are cpu, cuda:0",
    ["cpu", "cuda:0"],
  ]);
  assert.equal(refused({ devices: [], fault: absence(false) }), [
    "device cuda:1 is not there: libtorch finds no GPU and no NVIDIA driver",
    ["cpu"],
  ]);
  assert.match(absence(true), /driver is too old|CUDA_VISIBLE_DEVICES/);
});

test("a model, its fuser and their caches are on one device", async () => {
  assert.equal(receiver.device, { kind: "cpu" });
  const fuser = await loadFuser(folder("fuser"), { receiver, sharer }, { device: { kind: "cpu" } });
  assert.equal(fuser.device, { kind: "cpu" });
  await fuser.dispose();
  const other = { device: { kind: "cuda", index: 0 } };
  await fails(loadFuser(folder("fuser"), { receiver, sharer }, other), "OPTION_INVALID", /receiver's, which is cpu/);
});

test("devices by name", () => {
  assert.is(deviceName({ kind: "cuda", index: 3 }), "cuda:3");
  assert.equal(["cpu", "cuda", "cuda:2"].map(deviceFlag), [
    { kind: "cpu" },
    { kind: "cuda", index: 0 },
    { kind: "cuda", index: 2 },
  ]);
  for (const text of ["gpu", "cuda:", "cuda:x", "cuda:-1", ""])
    assert.throws(() => deviceFlag(text), /cpu, cuda or cuda:1/);
});

test("doctor's lines", () => {
  const facts = [
    { index: 0, name: "NVIDIA H100", memory: 85e9, kernels: true },
    { index: 1, name: "", memory: 0, kernels: false },
  ];
  assert.equal(gpus({ devices: facts, fault: null }, ["0000:01:00.0"]), [
    "cuda:0: NVIDIA H100, 79 GiB, used by this package's kernels",
    "cuda:1: used by libtorch's operations alone: this binary has no kernels for it",
  ]);
  assert.equal(gpus({ devices: [], fault: "no driver" }, ["0000:01:00.0"]), [
    "NVIDIA GPU at 0000:01:00.0: not used: no driver",
  ]);
  assert.equal(gpus({ devices: [], fault: "no driver" }, []), []);
});

// ── the libraries ────────────────────────────────────────────────────────────────────────────────────────────────────

/** A libtorch like the one in use, with something under the name of its part for CUDA. */
async function withCudaPart(put) {
  const home = await mkdtemp(join(tmpdir(), "c2c libtorch "));
  await mkdir(join(home, "lib"));
  for (const name of await readdir(join(root, "lib"))) await symlink(join(root, "lib", name), join(home, "lib", name));
  await writeFile(join(home, "build-version"), `${inspect(root).version.replace(/\+.*/, "")}+cu130\n`);
  await rm(join(home, "lib", libraryName("torch_cuda")), { force: true });
  await put(join(home, "lib", libraryName("torch_cuda")));
  return home;
}

/** Loads a model on the CPU there, then asks for a GPU that no machine has: whether the part is open before and after, what is said. */
async function askThere(home) {
  const script = `
    import { readFileSync } from "node:fs";
    import { loadModel } from "./dist/index.js";
    const source = { kind: "folder", path: "models/pair/receiver" };
    const part = ${JSON.stringify(join(home, "lib", libraryName("torch_cuda")))};
    const open = () => process.platform === "linux" && readFileSync("/proc/self/maps", "utf8").includes(part);
    await (await loadModel(source)).dispose();
    const before = open();
    const error = await loadModel(source, { device: { kind: "cuda", index: 126 } }).catch((reason) => reason);
    console.log(JSON.stringify({ part, before, after: open(), message: error.message, details: error.details }));`;
  const env = { ...process.env, CACHE_TO_CACHE_LIBTORCH: home };
  const { stdout } = await execute(process.execPath, ["--input-type=module", "-e", script], { cwd: HOME, env });
  return JSON.parse(stdout);
}

test("libtorch's part for CUDA is opened for the first GPU, not before", async () => {
  // Any library will do: it opens, and brings no device.
  const home = await withCudaPart((path) => copyFile(join(HOME, "build/Release/loader.node"), path));
  try {
    const { before, after, details, message } = await askThere(home);
    assert.equal([before, after], [false, process.platform === "linux"]);
    assert.is(details.what, "device cuda:126");
    assert.match(message, /libtorch finds no GPU|devices are cpu/);
  } finally {
    await rm(home, { recursive: true });
  }
});

test("a part for CUDA that cannot be opened is named; the CPU works without it", async () => {
  const home = await withCudaPart((path) => writeFile(path, "no library"));
  try {
    const { part, after, details, message } = await askThere(home);
    assert.equal(details, { what: "device cuda:126", supported: ["cpu"] });
    assert.ok(message.includes(part), message);
    assert.is(after, false);
  } finally {
    await rm(home, { recursive: true });
  }
});

// ── side by side ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** All keys and values of a cache. */
function rowsOf(cache) {
  const layers = Array.from({ length: cache.model.shape.layers }, (_, i) => i);
  return layers.flatMap((layer) => [cache.read(layer, "key"), cache.read(layer, "value")]);
}

/** What `prefillTogether` takes of a cache and the first tokens of a text. */
async function prefillOf(cache, text) {
  const tokens = Uint32Array.from(await cache.model.encodeText(text));
  return { cache: cacheState(cache), tokens, positions: tokens.map((_, i) => i) };
}

test("caches that are prefilled together hold what each would alone", async () => {
  const text = "Which fruit does Livia Ridley prefer?";
  const together = [receiver.cache(), sharer.cache(), receiver.cache()];
  await prefillTogether(await Promise.all(together.map((cache) => prefillOf(cache, text))));
  for (const cache of together) {
    const alone = await cache.model.prefill(await cache.model.encodeText(text));
    assert.equal(rowsOf(cache), rowsOf(alone));
    alone.dispose();
    cache.dispose();
  }
});

test("one that fails does not stop the others; a wrong argument starts none", async () => {
  const text = "Which fruit does Livia Ridley prefer?";
  const [small, large] = [receiver.cache({ capacity: 2, grow: false }), sharer.cache()];
  const prefills = await Promise.all([small, large].map((cache) => prefillOf(cache, text)));
  await fails(prefillTogether(prefills), "CACHE_FULL");
  assert.is(small.length, 0);
  assert.is(large.length, prefills[1].tokens.length);
  const [one, two] = [receiver.cache(), sharer.cache()];
  const wrong = await Promise.all([one, two].map((cache) => prefillOf(cache, text)));
  wrong[1].tokens[0] = sharer.shape.vocab;
  await fails(prefillTogether(wrong), "OPTION_INVALID", /tokens/);
  assert.equal([one.length, two.length], [0, 0]);
  await fails(prefillTogether([wrong[0], wrong[0]]), "CACHE_BUSY");
  const reason = new Error("enough");
  const abort = AbortSignal.abort(reason);
  assert.is(await prefillTogether([wrong[0]], abort).catch((error) => error), reason);
  await prefillTogether([wrong[0]]);
  assert.is(one.length, wrong[0].tokens.length);
  for (const cache of [small, large, one, two]) cache.dispose();
});

test("a channel whose models read side by side answers as one whose models do not", async () => {
  const prompt = "Which fruit does Livia Ridley prefer?";
  const fuser = await loadFuser(folder("fuser"), { receiver, sharer });
  const answer = async () => {
    const channel = connect(receiver, [{ sharer, fuser }], { prefixes: false });
    const { cache, logits } = await channel.prefill(prompt);
    const rows = rowsOf(cache);
    cache.dispose();
    channel.dispose();
    return { rows, logits };
  };
  const apart = await answer();
  // What decides is where models say that they lie; the work itself is the CPU's either way.
  const said = [receiver, sharer].map((model) => Object.getOwnPropertyDescriptor(model, "device"));
  const calls = [];
  const state = modelState(receiver);
  const { forward } = state.native;
  for (const model of [receiver, sharer])
    Object.defineProperty(model, "device", { value: { kind: "cuda", index: 0 }, configurable: true });
  const counted = (...args) => {
    calls.push(args[1].length);
    return forward.apply(state.native, args);
  };
  Object.defineProperty(state.native, "forward", { value: counted, configurable: true });
  try {
    const together = await answer();
    assert.equal(together, apart);
    assert.is(calls.length, 1, "the receiver alone reads the last section alone");
  } finally {
    delete state.native.forward;
    for (const [i, model] of [receiver, sharer].entries()) Object.defineProperty(model, "device", said[i]);
  }
  await fuser.dispose();
});

test.run();
