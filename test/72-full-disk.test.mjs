// No room for what is written: typed errors, the process lives on, old files stay as they were, nothing half-written is left.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, mkdtempSync, rmdirSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readFuserFolder, writeFuserFolder } from "../dist/fuser/folder.js";
import { loadModel } from "../dist/index.js";
import { writeCheckpoint as writeRun } from "../dist/train/checkpoint.js";
import { writeAtomic } from "../dist/weights/atomic.js";
import { writeCheckpoint } from "../dist/weights/checkpoint.js";
import { writeSafetensors } from "../dist/weights/safetensors.js";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const fuser = path("goldens/fusers/qwen2_bf16");
const program = path("support/full-disk.mjs");
const command = path("../dist/cli/main.js");
const test = suite("full disk");

const commit = "0123456789abcdef0123456789abcdef01234567";
const weights = Buffer.alloc(4_000_000, 7);
const files = new Map([
  ["config.json", Buffer.from("{}")],
  ["tokenizer.json", Buffer.from("{}")],
  ["model.safetensors", weights],
]);
const digest = (kind, data) => createHash(kind).update(data).digest("hex");
const hub = createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const json = (value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (pathname.endsWith("/revision/main")) return json({ id: "1", modelId: "tiny/pair", sha: commit });
  if (pathname.includes("/tree/")) {
    return json(
      [...files].map(([name, data]) => ({ type: "file", path: name, size: data.length, oid: digest("sha1", data) })),
    );
  }
  const data = files.get(pathname.split(`/resolve/${commit}/`)[1]);
  if (!data) return response.writeHead(404).end();
  const [, start = "0", end = ""] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "") ?? [];
  const last = end === "" ? data.length - 1 : Math.min(Number(end), data.length - 1);
  response.writeHead(request.headers.range ? 206 : 200, {
    ETag: `"${digest("sha1", data)}"`,
    "X-Repo-Commit": commit,
    "content-range": `bytes ${start}-${last}/${data.length}`,
    "content-length": last + 1 - Number(start),
  });
  return response.end(data.subarray(Number(start), last + 1));
});

let folder = "";
test.before(() => new Promise((done) => hub.listen(0, "127.0.0.1", done)));
test.after(() => {
  hub.closeAllConnections();
  hub.close();
});
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-full-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

/** Small files of every kind, where the writers will want to put larger ones. */
async function prepare(at) {
  const old = await readFuserFolder(fuser);
  await writeFuserFolder(old, join(at, "native"), "native");
  await writeFuserFolder(old, join(at, "reference"), "reference");
  const tensors = [{ name: "a", dtype: "F32", shape: [1], data: new Uint8Array(4) }];
  await writeSafetensors(join(at, "old.safetensors"), tensors);
  await writeCheckpoint(join(at, "old.pt"), tensors);
  await writeAtomic(join(at, "old.json"), "{}");
  const model = await loadModel({ kind: "folder", path: path("../models/pair/receiver") });
  const cache = await model.prefill(model.tokens([1]));
  await cache.save(join(at, "old.cache"));
  cache.dispose();
  await model.dispose();
  // A training run with the checkpoint of its first step.
  const none = { parameters: () => [], read: async () => new Float32Array() };
  await mkdir(join(at, "run"));
  await writeRun(join(at, "run"), { step: 1, finished: false, recipe: {} }, none, async () => undefined);
}

/** Every file below a folder with the hash of its content. */
async function snapshot(at) {
  const found = {};
  for (const entry of await readdir(at, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath ?? entry.path, entry.name);
    found[file] = digest("sha256", await readFile(file));
  }
  return found;
}

function run(file, args, env = {}) {
  return new Promise((done) => {
    const child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (data) => {
      stdout += data;
    });
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.on("close", (code, signal) => done({ code, signal, stdout, stderr }));
  });
}

/** Runs all writers by `launch` in `at` and checks what they leave. `system`: the codes that the system may give. */
async function noRoom(at, launch, system) {
  const before = await snapshot(at);
  const env = {
    HF_ENDPOINT: `http://127.0.0.1:${hub.address().port}`,
    HF_HUB_CACHE: join(at, "hub"),
    HF_HUB_OFFLINE: "",
    HF_TOKEN: "",
  };
  const { code, signal, stdout, stderr } = await run(...launch([program, at, fuser]), env);
  assert.is(code, 0, `${signal} ${stderr}`);
  const results = JSON.parse(stdout);
  assert.ok(Object.keys(results).length >= 10);
  for (const [name, result] of Object.entries(results)) assert.match(result, system, name);

  const convert = await run(...launch([command, "convert", path("../models/pair/fuser"), join(at, "native")]), env);
  assert.is(convert.code, 1, convert.stdout);
  assert.match(convert.stderr, /^error IO_FAILED: /);

  const after = await snapshot(at);
  for (const [file, hash] of Object.entries(before)) assert.is(after[file], hash, file);
  // Small whole files of the download may stay: the next try uses them.
  const extra = Object.keys(after).filter((file) => !(file in before) && !/\/hub\/.*\/blobs\/[0-9a-f]+$/.test(file));
  assert.equal(extra, []);
}

test("files may not grow past 64 KiB", async () => {
  await prepare(folder);
  const limited = (args) => ["bash", ["-c", 'ulimit -f 64 && exec "$0" "$@"', process.execPath, ...args]];
  await noRoom(folder, limited, /^IO_FAILED EFBIG$/);
});

/** A small disk of its own at `at`; false where mounting is not allowed. */
function mount(at) {
  return spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", at], { stdio: "ignore" }).status === 0;
}

async function fullDisk() {
  try {
    await prepare(folder);
    const filler = join(folder, "filler");
    try {
      for (;;) appendFileSync(filler, Buffer.alloc(4096));
    } catch (error) {
      assert.is(error.code, "ENOSPC");
    }
    await noRoom(folder, (args) => [process.execPath, args], /^IO_FAILED ENOSPC$/);
    rmSync(filler);
    await writeAtomic(join(folder, "old.json"), "[]");
    assert.is(await readFile(join(folder, "old.json"), "utf8"), "[]");
  } finally {
    spawnSync("umount", [folder]);
  }
}

// Mounting takes root's rights; the limit above needs none.
const probe = mkdtempSync(join(tmpdir(), "c2c-mount-"));
const mountable = mount(probe);
if (mountable) spawnSync("umount", [probe]);
rmdirSync(probe);
if (mountable) {
  test("a full disk", async () => {
    assert.ok(mount(folder));
    await fullDisk();
  });
}

test.run();
