// Ctrl-C in the middle of a chat's answer ends the answer, not the chat; Ctrl-C between answers ends the chat.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
let folder = "";
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-chat-"));
  // Without end tokens an answer goes on until its limit: there is a middle to interrupt.
  await cp(path("goldens/models/receiver"), folder, { recursive: true });
  await writeFile(join(folder, "generation_config.json"), JSON.stringify({ eos_token_id: [] }));
});
test.after(() => rm(folder, { recursive: true, force: true }));

/** Runs a command on a terminal of its own. `type` writes keys; `until` waits for text that was not there before. */
function terminal(command) {
  const child = spawn("script", ["--quiet", "--return", "--flush", "--command", command, "/dev/null"], {
    env: { ...process.env, TERM: "dumb", NO_COLOR: "1" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let text = "";
  let seen = 0;
  let wake = () => undefined;
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (chunk) => {
    text += chunk;
    wake();
  });
  const closed = new Promise((done) => child.on("close", (code) => done(code)));
  const until = async (pattern) => {
    const end = Date.now() + 60_000;
    for (;;) {
      const found = pattern.exec(text.slice(seen));
      if (found) {
        seen += found.index + found[0].length;
        return found[0];
      }
      if (Date.now() > end) throw new Error(`${pattern} did not come; there is: ${JSON.stringify(text.slice(seen))}`);
      await new Promise((done) => {
        const timer = setTimeout(done, 500);
        wake = () => {
          clearTimeout(timer);
          done();
        };
      });
    }
  };
  return { type: (keys) => child.stdin.write(keys), until, closed, text: () => text };
}

if (spawnSync("script", ["--version"], { stdio: "ignore" }).status === 0) {
  test("Ctrl-C in the middle of an answer, then another question, then Ctrl-C again", async () => {
    const chat = [process.execPath, path("../dist/cli/main.js"), "chat", "--receiver", folder];
    const { type, until, closed, text } = terminal(
      [...chat, "--max-new-tokens", "900"].map((part) => `'${part}'`).join(" "),
    );
    await until(/> /);
    type("hello\r");
    await until(/hello[\s\S]{80,}/);
    type("\x03");
    await until(/ \[ended\]\r\n/);
    await until(/> /);
    type("again\r");
    await until(/again[\s\S]{80,}/);
    type("\x03");
    await until(/ \[ended\]\r\n/);
    await until(/> /);
    type("\x03");
    assert.is(await closed, 0, text());
  });
}

test("a chat's second turn goes on from the first", async () => {
  const pair = (name) => path(`../models/pair/${name}`);
  const questions = ["Which fruit does Livia Ridley prefer?", "Tell me the profession of Thea Ibsen."];
  for (const sharer of [[], ["--sharer", pair("sharer"), "--fuser", pair("fuser")]]) {
    const args = ["chat", "--json", "--receiver", pair("receiver"), ...sharer, "--max-new-tokens", "4"];
    const { status, stdout, stderr } = spawnSync(process.execPath, [path("../dist/cli/main.js"), ...args], {
      input: `${questions.join("\n")}\n`,
      encoding: "utf8",
    });
    assert.is(status, 0, stderr);
    const [first, second, ...more] = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.is(more.length, 0);
    assert.ok(second.timings.promptTokens > first.timings.promptTokens);
    if (sharer.length > 0) {
      assert.equal(first.timings.reused, { receiver: 0, sharers: [0] });
      assert.ok(second.timings.reused.receiver >= first.timings.promptTokens - 5);
    }
  }
});

/** `generate` with a long answer; `during` sees the process when the first text has come. */
function generate(stdout, during) {
  const args = ["generate", "--receiver", folder, "--prompt", "hello", "--max-new-tokens", "900"];
  const child = spawn(process.execPath, [path("../dist/cli/main.js"), ...args], { stdio: ["ignore", stdout, "pipe"] });
  let stderr = "";
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  child.stdout?.once("data", () => during(child));
  return new Promise((done) => child.on("close", (code, signal) => done({ code, signal, stderr })));
}

test("SIGINT ends a generation with one line", async () => {
  const { code, stderr } = await generate("pipe", (child) => child.kill("SIGINT"));
  assert.is(code, 1);
  assert.match(stderr, /^error \w+: interrupted\n$/);
});

test("a reader that goes away ends a generation without a word", async () => {
  assert.equal(await generate("pipe", (child) => child.stdout.destroy()), { code: 0, signal: null, stderr: "" });
});

if (existsSync("/dev/full")) {
  test("an answer that cannot be written is one line", async () => {
    const full = openSync("/dev/full", "w");
    const { code, stderr } = await generate(full);
    closeSync(full);
    assert.is(code, 1);
    assert.match(stderr, /^error IO_FAILED: write to stdout: ENOSPC\n$/);
  });
}

test.run();
