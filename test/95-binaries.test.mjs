// Which binary is chosen, what an import says without one, and that a binary loads from any folder and in several
// environments of one process.
import { execFile } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { binaryFolders, chooseAddon, PLATFORM } from "../dist/setup/binaries.js";
import { loadNative } from "../dist/setup/load.js";
import { compareVersions, readElf } from "../scripts/prebuild/elf.mjs";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const execute = promisify(execFile);
const libtorch = loadNative().libtorch.root;

const test = suite("binaries");
test.before.each(async (context) => {
  // Spaces, an umlaut and characters beyond Latin: what people's folders are called.
  context.home = await mkdtemp(join(tmpdir(), "c2c Bücher 模型 "));
});
test.after.each(({ home }) => rm(home, { recursive: true, force: true }));

async function files(home, ...paths) {
  for (const path of paths) {
    await mkdir(join(home, path, ".."), { recursive: true });
    await writeFile(join(home, path), "");
  }
}

test("folders of this platform, a local build first", async ({ home }) => {
  assert.equal(binaryFolders(home), []);
  const addon = "cache-to-cache.torch-2.13.cpu.node";
  await files(
    home,
    `prebuilds/${PLATFORM}/${addon}`,
    `prebuilds/${PLATFORM}/loader.node`,
    "prebuilds/other-x64/a.node",
  );
  await files(home, `prebuilds/${PLATFORM}/cache-to-cache.torch-2.14.cu130.glibc.node`);
  const [only, ...more] = binaryFolders(home);
  assert.equal(more, []);
  assert.is(only.kind, "prebuild");
  const names = only.addons.map(({ path, minor, variant }) => [basename(path), minor, variant]);
  assert.equal(names, [
    [addon, "2.13", "cpu"],
    ["cache-to-cache.torch-2.14.cu130.glibc.node", "2.14", "cu130"],
  ]);
  await files(home, "build/Release/cache_to_cache.node", "build/Release/loader.node");
  assert.equal(
    binaryFolders(home).map(({ kind }) => kind),
    ["local build", "prebuild"],
  );
});

test("the addon for a libtorch", () => {
  const addon = (minor, variant) => ({ path: `${minor} ${variant}`, minor, variant });
  const all = [addon("2.12", "cpu"), addon("2.13", "cpu"), addon("2.13", "cu130")];
  assert.is(chooseAddon(all, "2.13", "cpu"), all[1]);
  assert.is(chooseAddon(all, "2.13", "cu130"), all[2]);
  assert.is(chooseAddon(all, "2.13", "cu126"), all[1], "any libtorch carries the binary for the CPU");
  assert.is(chooseAddon(all, "2.12", "cu130"), all[0]);
  assert.is(chooseAddon(all, "2.14", "cpu"), undefined);
  assert.is(chooseAddon(all, null, null), all[0]);
  const local = addon(null, null);
  assert.is(chooseAddon([local], "2.13", "cu130"), local);
});

test("versions", () => {
  assert.ok(compareVersions("2.9", "2.28") < 0);
  assert.ok(compareVersions("3.4.30", "3.4.25") > 0);
  assert.is(compareVersions("2.28", "2.28.0"), 0);
});

if (process.platform === "linux") {
  test("what the modules ask for and give", () => {
    const elf = readElf(join(HOME, "build/Release/cache_to_cache.node"));
    const loader = readElf(join(HOME, "build/Release/loader.node"));
    if (elf === undefined || loader === undefined) return assert.unreachable("readelf (binutils) is needed");
    assert.ok(elf.needed.includes("libtorch_cpu.so"));
    assert.not.ok(loader.needed.some((name) => /torch|c10|omp/.test(name)));
    for (const { runpath, exports } of [elf, loader]) {
      assert.is(runpath, "$ORIGIN");
      assert.equal(exports, ["napi_register_module_v1", "node_api_module_get_api_version_v1"]);
    }
  });
}

/** The built package in another folder, with or without binaries. */
async function installed(home, { binaries }) {
  await Promise.all([
    ...["dist", "scripts", "package.json"].map((name) => cp(join(HOME, name), join(home, name), { recursive: true })),
    symlink(join(HOME, "node_modules"), join(home, "node_modules")),
    symlink(join(HOME, "models"), join(home, "models")),
  ]);
  if (binaries) await cp(join(HOME, "build/Release"), join(home, "build/Release"), { recursive: true });
}

/** Runs a module there, with a libtorch named or with a cache folder that has none. */
async function runThere(home, script, named) {
  const env = { ...process.env, XDG_CACHE_HOME: join(home, "cache"), CACHE_TO_CACHE_LIBTORCH: named ?? "" };
  await writeFile(join(home, "run.mjs"), script);
  return await execute(process.execPath, [join(home, "run.mjs")], { env, cwd: home });
}

test("an import without a binary says what to run; the first call is NATIVE_MISSING", async ({ home }) => {
  await installed(home, { binaries: false });
  const { stdout, stderr } = await runThere(
    home,
    `import { loadModel } from "./dist/index.js";
     await loadModel({ kind: "folder", path: "models/pair/receiver" }).catch(({ code, message, details }) =>
       console.log(JSON.stringify({ code, message, details })));`,
  );
  assert.match(stderr, /\[C2C_SETUP\] CacheToCache: there is no native binary .* Run: npx cache-to-cache setup/);
  const { code, message, details } = JSON.parse(stdout);
  assert.is(code, "NATIVE_MISSING");
  assert.match(message, /run: npx cache-to-cache setup/);
  assert.match(details.fix[0], /^npx cache-to-cache setup/);
  assert.match(details.tried[0].cause, /no binary for this platform/);
});

test("with a prebuild and no libtorch both name the folders that were tried", async ({ home }) => {
  await installed(home, { binaries: false });
  const folder = join(home, "prebuilds", PLATFORM);
  await cp(join(HOME, "build/Release/loader.node"), join(folder, "loader.node"));
  await cp(join(HOME, "build/Release/cache_to_cache.node"), join(folder, "cache-to-cache.torch-2.13.cpu.node"));
  const script = `import { loadModel } from "./dist/index.js";
    await loadModel({ kind: "folder", path: "models/pair/receiver" }).then(
      (model) => console.log(model.shape.family), (error) => console.log(error.message));`;
  const without = await runThere(home, script);
  assert.match(without.stderr, /C2C_SETUP.*libtorch 2\.13 was not found\. Run: npx cache-to-cache setup$/m);
  assert.match(without.stdout, /run: npx cache-to-cache setup\n[\s\S]*libtorch-2\.13\.0-cpu/);
  const other = await mkdtemp(join(home, "libtorch "));
  await files(other, "lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch_cpu.dylib", "lib/libc10.dylib");
  await writeFile(join(other, "build-version"), "2.12.1+cpu\n");
  assert.match((await runThere(home, script, other)).stdout, /version 2\.12\.1\+cpu, but 2\.13 is needed/);
  const good = await runThere(home, script, libtorch);
  assert.is(good.stderr, "");
  assert.match(good.stdout, /qwen/i);
});

test("loads from a folder with spaces and other alphabets", async ({ home }) => {
  await installed(home, { binaries: true });
  const { stdout } = await runThere(
    home,
    `import { connect, loadFuser, loadModel } from "./dist/index.js";
     const [receiver, sharer] = await Promise.all(["receiver", "sharer"].map((name) =>
       loadModel({ kind: "folder", path: new URL("models/pair/" + name, import.meta.url).pathname.split("/").map(decodeURIComponent).join("/") })));
     const fuser = await loadFuser({ kind: "folder", path: "models/pair/fuser" }, { receiver, sharer });
     console.log(await connect(receiver, [{ sharer, fuser }]).generate("Which fruit does Livia Ridley prefer?", { maxNewTokens: 4 }).text());`,
    libtorch,
  );
  assert.match(stdout, /\w+/);
});

test("several environments of one process at once, each with handles of its own", async () => {
  const script = `
    const { parentPort, workerData } = require("node:worker_threads");
    (async () => {
      const { loadModel } = await import(workerData.entry);
      const model = await loadModel({ kind: "folder", path: workerData.model });
      const { tokens } = await model.encode("Which fruit does Livia Ridley prefer?");
      const cache = await model.prefill(model.tokens(tokens.slice(0, -1)));
      const text = await model.generate(cache, model.tokens(tokens.slice(-1)), { maxNewTokens: 8 }).text();
      await model.dispose();
      parentPort.postMessage(text);
    })();`;
  const workerData = {
    entry: pathToFileURL(join(HOME, "dist/index.js")).href,
    model: join(HOME, "models/pair/receiver"),
  };
  const workers = [1, 2, 3].map(() => new Worker(script, { eval: true, workerData }));
  const texts = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
  await Promise.all(workers.map((worker) => worker.terminate()));
  assert.is(new Set(texts).size, 1);
  assert.ok(texts[0].length > 0);
  // A fourth, after the others' environments are gone.
  const late = new Worker(script, { eval: true, workerData });
  assert.is((await once(late, "message"))[0], texts[0]);
  await late.terminate();
});

test.run();
