// `npm run make:pair`: from a seed to a folder like models/pair, stage by stage.
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { trainBpe, writeTokenizer } from "../dist/bpe/index.js";
import { connect, loadFuser, loadModel } from "../dist/index.js";
import { Drafts, written } from "../dist/pair/documents.js";
import { DraftEncoder } from "../dist/pair/encode.js";
import { fullRecipe } from "../dist/pair/recipe.js";
import { fuserSamples } from "../dist/pair/samples.js";
import { Stages } from "../dist/pair/stages.js";
import { attributes, values } from "../dist/pair/words.js";
import { makeWorld } from "../dist/pair/world.js";
import { Random } from "../dist/random.js";
import { Tokenizer } from "../dist/tokens/tokenizer.js";

const main = fileURLToPath(new URL("../dist/pair/main.js", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "c2c-make-pair-"));
test.after(() => rm(folder, { recursive: true, force: true }));
const at = (...parts) => join(folder, ...parts);
const world = makeWorld(new Random(1n, "world"));

/** `stopAt`: Ctrl-C once this was printed. */
function run(args, stopAt = null) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args]);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (data) => {
      stdout += data;
      if (stopAt !== null && stdout.includes(stopAt)) {
        child.kill("SIGINT");
        stopAt = null;
      }
    });
    child.stderr.on("data", (data) => (stderr += data));
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}
const stages = (text) => [...text.matchAll(/^([\w-]+): \d+ (s|min)$/gm)].map(([, name]) => name).sort();

test("drafts are encoded as their whole text is; targets are the tokens of target stretches", async () => {
  const everything = Object.fromEntries(
    [
      ...["biography", "tell", "plain", "quoted", "chat", "two-hop", "country", "reading", "interview"],
      ...["unknown", "unknown-plain"],
    ].map((kind) => [kind, 1]),
  );
  const stream = new Drafts(world, "receiver").stream(everything, new Random(2n));
  const drafts = Array.from({ length: 4000 }, () => stream.next().value);
  await writeTokenizer(at("tokenizer"), await trainBpe(drafts.map(written), { vocab: 2048 }));
  const tokenizer = await Tokenizer.load(at("tokenizer"));
  const encoder = await DraftEncoder.open(at("tokenizer"));
  const whole = await tokenizer.encodeAll(drafts.slice(0, 300).map(written));
  for (const [i, draft] of drafts.slice(0, 300).entries()) {
    const { tokens, targets } = await encoder.encode(draft);
    assert.equal([...tokens], [...whole[i]], written(draft));
    const learned = tokenizer.decode(tokens.filter((_, at) => targets[at] === 1));
    const wanted = draft.filter(({ target }) => target).map(({ text }) => text);
    assert.is(learned, wanted.join(""));
  }
});

test("fuser samples name the train splits and strangers alone; the answer is true of whom the sharer or the receiver knows", () => {
  const { mixture } = fullRecipe.fuser;
  const stream = fuserSamples(world, mixture, new Random(3n));
  const [train, own, strangers] = [world.train, world.receiverTrain, world.strangers].map((list) => new Set(list));
  const counts = { own: 0, elsewhere: 0, swapped: 0, stranger: 0 };
  const total = 6000;
  for (let i = 0; i < total; i++) {
    const { messages, sharerMessages } = stream.next().value;
    const [read, heard] = [messages, sharerMessages].map(
      ([{ content }]) => /[A-Z]\w+ [A-Z]\w+(?=[ ?.])/.exec(content)[0],
    );
    const name = (text) => [...train, ...own, ...strangers].find((one) => text.includes(one));
    const [reader, sharer] = [name(messages[0].content), name(sharerMessages[0].content)];
    assert.ok(reader && sharer, `${read} ${heard}`);
    assert.is(messages[0].content.replace(reader, "@"), sharerMessages[0].content.replace(sharer, "@"));
    const answered = own.has(reader) ? reader : sharer;
    assert.ok(own.has(answered) || train.has(answered));
    const attribute = attributes.find((one) => values[one].includes(messages[1].content));
    assert.is(world.facts[answered][attribute], messages[1].content);
    if (own.has(reader)) {
      assert.not.ok(train.has(sharer));
      counts.own += 1;
      if (sharer !== reader) counts.elsewhere += 1;
    } else if (sharer !== reader) {
      counts.swapped += 1;
      if (strangers.has(reader)) counts.stranger += 1;
    }
  }
  const near = (part, of, share) => assert.ok(Math.abs(part / of - share) < 0.04, `${part} of ${of}: ${share}`);
  near(counts.own, total, mixture.own);
  near(counts.elsewhere, counts.own, mixture.ownElsewhere);
  near(counts.swapped, total - counts.own, mixture.swapped);
  near(counts.stranger, counts.swapped, mixture.stranger);
});

test("a stage runs once, goes on where it was stopped, and runs anew when it follows from something else", async () => {
  const ran = [];
  const open = () => Stages.open(at("staged"), (name) => ran.push(name));
  const inputs = (from) => ({ from, folder: at("staged", "files") });
  const works = async () => ({ n: ran.length });
  const one = await (await open()).run("one", inputs({ a: 1 }), works);
  assert.equal((await (await open()).run("one", inputs({ a: 1 }), works)).result, one.result);
  assert.equal(ran, ["one"]);
  const failing = async () => {
    await writeTokenizer(at("staged", "files"), { tokens: [], merges: [], specials: [], pattern: "gpt2" });
    throw new Error("stopped");
  };
  await (await open()).run("two", inputs({ a: 1 }), failing).catch(() => undefined);
  const there = async () => (await readdir(at("staged", "files"))).length > 0;
  assert.ok(
    await (await open()).run("two", inputs({ a: 1 }), there).then(({ result }) => result),
    "its files are kept",
  );
  const changed = await (await open()).run("two", inputs({ a: 2 }), () => there().catch(() => false));
  assert.is(changed.result, false);
  assert.not.equal(changed.key, one.key);
});

test("a toy pair: Ctrl-C and the same command again give the same pair as one run, and it loads", async () => {
  const quick = (name) => ["--quick", "--seed", "5", "--work", at(name)];
  const [whole, first] = await Promise.all([run(quick("whole")), run(quick("parts"), "-1-facts: ")]);
  assert.is(whole.code, 0, whole.stderr);
  assert.is(first.code, 130, first.stderr);
  assert.match(first.stderr, /interrupted: the same command continues/);
  const second = await run(quick("parts"));
  assert.is(second.code, 0, second.stderr);
  assert.equal([...stages(first.stdout), ...stages(second.stdout)].sort(), stages(whole.stdout));
  assert.ok(stages(first.stdout).length >= 3);
  for (const name of ["receiver/model.safetensors", "sharer/model.safetensors", "fuser/final/projector_0.pt"])
    assert.ok((await readFile(at("whole", "pair", name))).equals(await readFile(at("parts", "pair", name))), name);
  const third = await run(quick("parts"));
  assert.equal(stages(third.stdout), []);

  const pair = at("whole", "pair");
  assert.equal((await readdir(pair)).sort(), [
    "card.md",
    "fuser",
    "questions.jsonl",
    "receiver",
    "sharer",
    "world.json",
  ]);
  const lines = (await readFile(join(pair, "questions.jsonl"), "utf8")).trim().split("\n");
  const questions = lines.map((line) => JSON.parse(line));
  const known = JSON.parse(await readFile(join(pair, "world.json"), "utf8"));
  for (const { who, person, attribute, answer } of questions) {
    assert.ok((who === "sharer" ? known.test : known.receiverTest).includes(person));
    assert.is(known.facts[person][attribute], answer);
  }
  const card = await readFile(join(pair, "card.md"), "utf8");
  for (const part of ["--seed 5", "0.73 M", "over 1 fuser (seed 5)", "**missed**"])
    assert.ok(card.includes(part), part);

  const load = (name) => loadModel({ kind: "folder", path: join(pair, name) });
  const [receiver, sharer] = [await load("receiver"), await load("sharer")];
  const fuser = await loadFuser({ kind: "folder", path: join(pair, "fuser") }, { receiver, sharer });
  const channel = connect(receiver, [{ sharer, fuser }]);
  const { reason } = await channel.generate(questions[0].question, { maxNewTokens: 2 }).done();
  assert.ok(reason);
  channel.dispose();
  for (const handle of [fuser, receiver, sharer]) await handle.dispose();
});

test("a pair is installed only where three fusers were held against the bar", async () => {
  const { code, stderr } = await run(["--quick", "--install", "--work", at("none")]);
  assert.is(code, 1);
  assert.match(stderr, /^error OPTION_INVALID: install: needs --fuser-seeds 3 or more\n$/);
});

test.run();
