// The Electron example without Electron: the protocol of its models' process, its packaging, and what the addon must not use.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { installApp, startModels } from "../scripts/check/electron-app.mjs";
import { readElf } from "../scripts/prebuild/elf.mjs";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const PROMPT = "Which fruit does Livia Ridley prefer?";
const test = suite("electron");
let folder;
let app;
let models;

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c Elektron 電子 "));
  app = installApp(folder);
  models = startModels(app);
  const { state, text } = await models.next(({ type, state }) => type === "status" && state !== "loading");
  assert.is(state, "ready", text);
});
test.after(async () => {
  models.child.kill();
  await rm(folder, { recursive: true, force: true });
});

test("a question is answered three ways, token by token, with times and gates", async () => {
  const from = models.all.length;
  const end = models.next(({ type, id }) => id === 1 && (type === "end" || type === "error"));
  models.send({ type: "ask", id: 1, prompt: PROMPT, maxNewTokens: 8 });
  assert.equal(await end, { type: "end", id: 1, cancelled: false });
  const seen = models.all.slice(from).filter(({ id }) => id === 1);
  const done = seen.filter(({ type }) => type === "done");
  assert.equal(
    done.map(({ pane }) => pane),
    ["receiver", "text", "cache"],
  );
  for (const { pane, firstTokenMs, totalMs, tokens } of done) {
    assert.ok(firstTokenMs > 0 && totalMs >= firstTokenMs && tokens > 0, pane);
    assert.ok(seen.some(({ type, pane: own }) => type === "token" && own === pane));
  }
  const answer = (pane) =>
    seen.flatMap((message) => (message.type === "token" && message.pane === pane ? [message.text] : [])).join("");
  assert.not.equal(answer("receiver"), answer("cache"), "the cache changes the answer");
  const gates = seen.find(({ type }) => type === "gates");
  assert.ok(gates.layers.length > 0);
  for (const { keyWeight, valueWeight } of gates.layers)
    for (const weight of [keyWeight, valueWeight]) assert.ok(weight >= 0 && weight <= 1);
});

test("cancel ends an answer early, and the next question is answered", async () => {
  const first = models.next(({ type, id }) => type === "token" && id === 2);
  const end = models.next(({ type, id }) => type === "end" && id === 2);
  models.send({ type: "ask", id: 2, prompt: PROMPT, maxNewTokens: 4000 });
  await first;
  models.send({ type: "cancel", id: 2 });
  assert.ok((await end).cancelled);
  const after = models.next(({ type, id }) => type === "end" && id === 3);
  models.send({ type: "ask", id: 3, prompt: PROMPT, maxNewTokens: 2 });
  assert.not.ok((await after).cancelled);
});

test("what cannot be answered is an error with its code, and no end of the process", async () => {
  const error = models.next(({ id }) => id === 4);
  models.send({ type: "ask", id: 4, prompt: PROMPT, maxNewTokens: -1 });
  const { type, code } = await error;
  assert.is(type, "error");
  assert.is(code, "OPTION_INVALID");
});

test("a closed channel ends the process, in the middle of an answer too", async () => {
  const other = startModels(app);
  await other.next(({ state }) => state === "ready");
  const first = other.next(({ type }) => type === "token");
  other.send({ type: "ask", id: 1, prompt: PROMPT, maxNewTokens: 4000 });
  await first;
  assert.is(await other.stop(), 0);
});

test("models that cannot be loaded are a state, with the reason", async () => {
  const other = startModels(app, { C2C_RECEIVER: join(folder, "nowhere") });
  const { state, text } = await other.next(({ type, state }) => type === "status" && state !== "loading");
  assert.is(state, "failed");
  assert.match(text, /nowhere/);
  assert.is(await other.stop(), 0);
});

test("binaries and model files stay outside the archive", async () => {
  const { asar, asarUnpack, npmRebuild } = JSON.parse(await readFile(join(app, "electron-builder.json"), "utf8"));
  assert.is(asar, true);
  assert.is(npmRebuild, false, "Node-API binaries need no rebuild");
  const { files } = JSON.parse(await readFile(join(HOME, "package.json"), "utf8"));
  for (const part of ["prebuilds", "models"]) {
    assert.ok(files.includes(part));
    assert.ok(asarUnpack.includes(`node_modules/cache-to-cache/${part}/**`), part);
  }
});

test("no external buffers: memory cages refuse them", async () => {
  const commands = JSON.parse(await readFile(join(HOME, "build/compile_commands.json"), "utf8"));
  const napi = commands.filter(({ file }) => /cpp\/(napi\/|addon)/.test(file));
  assert.ok(napi.length > 1);
  for (const { file, command } of napi) assert.match(command, /NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED/, file);
  if (process.platform !== "linux") return;
  for (const name of ["loader", "cache_to_cache"]) {
    const { imports } = readElf(join(HOME, `build/Release/${name}.node`));
    assert.ok(imports.includes("napi_define_properties") || imports.includes("napi_create_function"), name);
    assert.not.ok(imports.some((symbol) => /napi_create_external_(array)?buffer/.test(symbol)));
  }
});

test.run();
