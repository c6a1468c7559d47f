// Caches that are larger than memory: OUT_OF_MEMORY with what was asked for, and everything goes on. Caches that were lost.
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const test = suite("memory");
const TERABYTE = 1e12;
let model;
test.before(async () => {
  model = await loadModel({ kind: "folder", path: path("../models/pair/receiver") });
});
test.after(() => model.dispose());

test("a cache of 10 TB", async () => {
  const one = model.cache({ capacity: 1 });
  const capacity = Math.ceil((10 * TERABYTE) / one.bytes);
  one.dispose();
  for (const grow of [true, false]) {
    for (const factor of [1, 1000]) {
      let error;
      try {
        model.cache({ capacity: capacity * factor, grow }).dispose();
      } catch (reason) {
        error = reason;
      }
      assert.is(error?.code, "OUT_OF_MEMORY", error?.stack);
      assert.equal(error.details.device, { kind: "cpu" });
      assert.ok(error.details.requested >= 10 * TERABYTE * factor, `${error.details.requested}`);
    }
  }
  assert.is(liveHandles().cache, 0);
  const cache = await model.prefill(model.tokens([5, 6, 7]));
  assert.is(cache.length, 3);
  cache.dispose();
});

test("memory that the system refuses", async () => {
  const { code, signal, stdout, stderr } = await new Promise((done) => {
    const child = spawn(process.execPath, [path("support/little-memory.mjs"), path("../models/pair/receiver")]);
    const text = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) {
      child[name].on("data", (data) => {
        text[name] += data;
      });
    }
    child.on("close", (code, signal) => done({ code, signal, ...text }));
  });
  assert.is(code, 0, `${signal} ${stderr}`);
  const { errors, text, longer } = JSON.parse(stdout);
  assert.equal(errors, ["OUT_OF_MEMORY", "OUT_OF_MEMORY", "OUT_OF_MEMORY"]);
  assert.ok(text.length > 0);
  assert.ok(longer);
});

test("packed weights are not resident a second time, nor what libtorch's start alone has read", async () => {
  if (process.platform !== "linux") return;
  const folder = mkdtempSync(join(tmpdir(), "c2c-resident-"));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [path("support/resident.mjs"), folder]);
    const { weights, fuser, libtorch } = JSON.parse(stdout);
    assert.ok(weights < 2, stdout);
    assert.ok(fuser < 2, stdout);
    assert.ok(libtorch < 32, stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("caches that were never disposed are freed, and named under NODE_DEBUG", async () => {
  const run = (env) =>
    promisify(execFile)(process.execPath, ["--expose-gc", path("support/leaks.mjs"), path("../models/pair/receiver")], {
      env: { ...process.env, ...env },
    });
  const quiet = await run({ NODE_DEBUG: "" });
  assert.equal(JSON.parse(quiet.stdout), { before: 2, after: 0 });
  assert.is(quiet.stderr, "");
  const { stdout, stderr } = await run({ NODE_DEBUG: "cache-to-cache" });
  assert.equal(JSON.parse(stdout), { before: 2, after: 0 });
  const reports = stderr.match(/a cache was collected without dispose\(\); made[\s\S]*?leaks\.mjs:\d+/g);
  assert.is(reports?.length, 2, stderr);
});

test.run();
