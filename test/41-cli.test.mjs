import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadModel } from "../dist/index.js";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const pair = path("../models/pair");
const receiver = join(pair, "receiver");
const both = ["--receiver", receiver, "--sharer", join(pair, "sharer"), "--fuser", join(pair, "fuser")];

const run = (args, input = "") =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [path("../dist/cli/main.js"), ...args]);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (data) => (stdout += data));
    child.stderr.on("data", (data) => (stderr += data));
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.end(input);
  });
const question = "What pet does Flora Parrish own?";

test("generate streams the receiver's answer", async () => {
  const { code, stdout, stderr } = await run([
    "generate",
    "--receiver",
    receiver,
    "--prompt",
    question,
    "--max-new-tokens",
    "6",
  ]);
  assert.is(code, 0, stderr);
  assert.ok(stdout.trim().length > 0);
});

test("generate --json through a channel", async () => {
  const { code, stdout, stderr } = await run([
    "generate",
    ...both,
    "--prompt",
    question,
    "--max-new-tokens",
    "6",
    "--json",
  ]);
  assert.is(code, 0, stderr);
  const { text, reason, timings, reports } = JSON.parse(stdout);
  assert.is(typeof text, "string");
  assert.is(reason.kind, "eos");
  assert.ok(timings.newTokens > 0);
  assert.equal(
    reports[0].gates.map(({ layer }) => layer),
    [2, 3],
  );
});

test("chat answers every line", async () => {
  const { code, stdout, stderr } = await run(["chat", ...both, "--max-new-tokens", "4"], `${question}\nAnd now?\n`);
  assert.is(code, 0, stderr);
  assert.ok(stdout.split("\n").length >= 3);
});

test("inspect a cache's file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "c2c-cli-"));
  const model = await loadModel({ kind: "folder", path: receiver });
  const cache = await model.prefill(model.tokens([1, 2, 3]));
  const file = join(folder, "cache");
  await cache.save(file, { quantize: "int8" });
  cache.dispose();
  await model.dispose();
  const found = JSON.parse((await run(["inspect", file, "--json"])).stdout);
  assert.equal([found.kind, found.length, found.parts], ["cache", 3, [{ form: "int8", rows: 3 }]]);
  assert.match((await run(["inspect", file])).stdout, /^cache of receiver, 3 rows in float32/);
  const { code, stderr } = await run(["inspect", join(receiver, "model.safetensors")]);
  assert.is(code, 1);
  assert.match(stderr, /^error FILE_INVALID: /);
  await rm(folder, { recursive: true });
});

test("inspect a model and a fuser", async () => {
  const model = JSON.parse((await run(["inspect", receiver, "--json"])).stdout);
  assert.is(model.family, "qwen3");
  assert.is(model.layers, 4);
  const fuser = JSON.parse((await run(["inspect", join(pair, "fuser"), "--json"])).stdout);
  assert.is(fuser.gates.length, 2);
  assert.ok(fuser.gates.every(({ key, value }) => key > 0 && value > 0));
  assert.match((await run(["inspect", join(pair, "fuser")])).stdout, /open/);
});

test("convert to the native format and back", async () => {
  const folder = await mkdtemp(join(tmpdir(), "c2c-cli-"));
  const native = join(folder, "native");
  assert.is((await run(["convert", join(pair, "fuser"), native])).code, 0);
  assert.ok((await readdir(native)).includes("fuser.json"));
  assert.is((await run(["convert", native, join(folder, "back"), "--format", "reference"])).code, 0);
  const back = JSON.parse((await run(["inspect", join(folder, "back"), "--json"])).stdout);
  assert.equal(back.gates, JSON.parse((await run(["inspect", native, "--json"])).stdout).gates);
  await rm(folder, { recursive: true, force: true });
});

test("errors are one line and status 1", async () => {
  for (const args of [
    ["inspect", "no-such-thing"],
    ["inspect", tmpdir()],
    ["generate", "--receiver", receiver, "--sharer", receiver, "--prompt", "x"],
  ]) {
    const { code, stderr } = await run(args);
    assert.is(code, 1);
    assert.match(stderr, /^error [A-Z_]+: [^\n]+\n$/);
  }
});

test("demo on a few questions", async () => {
  const { code, stdout, stderr } = await run(["demo", "--limit", "24", "--json"]);
  assert.is(code, 0, stderr);
  const report = JSON.parse(stdout.trimEnd().split("\n").at(-1));
  assert.is(report.questions, 24);
  assert.ok(report.accuracy.c2c > report.accuracy.receiver + 0.3);
  assert.ok(report.accuracy.c2c > report.accuracy.mismatched + 0.3);
  assert.ok(report.accuracy.c2c > report.accuracy.zeroed + 0.3);
});

test.run();
