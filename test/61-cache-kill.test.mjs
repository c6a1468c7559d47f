// A process that is killed while it saves a cache leaves the old file or the new one, whole.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadCache, loadModel } from "../dist/index.js";

// `C2C_KILLS=500` for a longer run.
const kills = Number(process.env.C2C_KILLS ?? 6);
const rows = 600;
const source = { kind: "folder", path: fileURLToPath(new URL("../models/pair/receiver", import.meta.url)) };
const program = fileURLToPath(new URL("support/save-forever.mjs", import.meta.url));

test(`${kills} kills at random moments`, async () => {
  const folder = await mkdtemp(join(tmpdir(), "c2c-kill-"));
  const path = join(folder, "cache");
  const model = await loadModel(source);
  const first = await model.prefill(model.tokens([1]));
  await first.save(path);
  first.dispose();
  let saves = 0;
  const seen = new Set();
  for (let i = 0; i < kills; i++) {
    const child = spawn(process.execPath, [program, path, JSON.stringify(source), String(rows)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout.on("data", (data) => {
      saves += data.length;
    });
    await once(child.stdout, "data"); // saving has begun
    await new Promise((done) => setTimeout(done, Math.random() * 60));
    child.kill("SIGKILL");
    const [, signal] = await once(child, "close");
    assert.is(signal, "SIGKILL");
    const cache = await loadCache(path, model);
    // Every cache there is repeats one token: a mixture of two would show.
    assert.is(new Set(cache.tokens).size, 1);
    assert.ok(cache.length === rows || cache.length === 1);
    seen.add(`${cache.tokens[0]}`);
    cache.dispose();
  }
  assert.ok(saves > kills, `${saves} saves`);
  assert.ok(seen.size >= 1);
  await model.dispose();
  await rm(folder, { recursive: true });
});

test.run();
