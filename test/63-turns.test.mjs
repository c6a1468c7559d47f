// Several turns on one channel: what is reused, and that the outcome is that of a fresh run.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { planOf } from "../dist/evaluate/subject.js";
import { connect, createPrefixStore, evaluate, loadFuser, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";
import { changedFuser, ownSharer, widen } from "./fusers.mjs";
import { keeping } from "./support/handles.mjs";
import { fails } from "./support.mjs";

const folder = (name) => ({ kind: "folder", path: fileURLToPath(new URL(`../models/pair/${name}`, import.meta.url)) });
const float32 = { dtype: "float32" };
fc.configureGlobal({ includeErrorInReport: true });
let receiver;
let twins;
let sharers;
const loaded = [];
let folders = "";
/** A sharer for each fuser. */
async function links(model, fusers) {
  const made = [];
  for (const fuser of fusers) {
    const sharer = await loadModel(model, float32);
    made.push({ sharer, fuser: await loadFuser(fuser, { receiver, sharer }, float32) });
  }
  loaded.unshift(...made.map(({ fuser }) => fuser), ...made.map(({ sharer }) => sharer));
  return made;
}
/** Where it was not trained to be, the fuser at its strength would make numbers so large that rounding shows. */
function gentle(name, values, shape) {
  return /proj_out/.test(name) ? { values: values.map((x) => x / 10), shape } : undefined;
}
test.before(async () => {
  receiver = await loadModel(folder("receiver"), float32);
  loaded.push(receiver);
  folders = await mkdtemp(join(tmpdir(), "c2c-turns-"));
  const weak = (name) => ({ kind: "folder", path: join(folders, name) });
  const [first] = await links(folder("sharer"), [folder("fuser")]);
  await changedFuser(first.fuser, weak("second").path, gentle);
  sharers = [first, ...(await links(folder("sharer"), [weak("second")]))];
  // "same" is for sharers of the receiver's vocabulary.
  await changedFuser(first.fuser, weak("twin").path, (...tensor) => gentle(...tensor) ?? widen(...tensor), ownSharer);
  twins = await links(folder("receiver"), [weak("twin"), weak("twin")]);
});
const { keep, check } = keeping(test);
test.after(async () => {
  for (const handle of loaded) await handle.dispose();
  await rm(folders, { recursive: true });
});

/** As near as fresh runs in other pieces are. */
function close(actual, expected, what) {
  assert.is(actual.length, expected.length, what);
  const apart = actual.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i])), 0);
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  assert.ok(apart < 1e-4 + 1e-5 * largest, `${what}: ${apart} apart, ${largest} at most`);
}
/** Links from short words: a strategy for each sharer, "+" where the response is fused too. */
function linksOf(words) {
  return words.map((word, i) => {
    const span = word.endsWith("+") ? "prompt-and-response" : "prompt";
    const align = word.replace("+", "");
    return { ...(align === "same" ? twins : sharers)[i], align, span };
  });
}
function channelOf(words, options) {
  return keep(connect(receiver, linksOf(words), options));
}

/** The prompt on a channel and on a fresh one: caches, logits and reports agree. Returns what was reused. */
async function compare(channel, words, order, prompt) {
  const fresh = keep(connect(receiver, linksOf(words), { order, prefixes: false }));
  const [ours, theirs] = [await channel.prefill(prompt), await fresh.prefill(prompt)];
  const caches = [keep(ours.cache), keep(theirs.cache)];
  const rows = ours.cache.length;
  assert.equal([...ours.cache.tokens], [...theirs.cache.tokens]);
  assert.equal([...ours.cache.positions], [...theirs.cache.positions]);
  close(ours.logits, theirs.logits, "logits");
  for (let layer = 0; layer < receiver.shape.layers; layer++) {
    for (const part of ["key", "value"]) {
      const where = `${part} of layer ${layer}, ${ours.reused.receiver} of ${rows} rows reused`;
      close(ours.cache.read(layer, part), theirs.cache.read(layer, part), where);
    }
  }
  assert.equal(
    ours.reports.map(({ positions }) => positions),
    theirs.reports.map(({ positions }) => positions),
  );
  assert.is(ours.cache.reused, ours.reused.receiver);
  assert.equal(theirs.reused, { receiver: 0, sharers: words.map(() => 0) });
  for (const handle of [...caches, fresh]) handle.dispose();
  return { ...ours.reused, rows, reports: [ours.reports, theirs.reports] };
}

const settings = [
  { words: ["same"], order: "sequential" },
  { words: ["same+"], order: "sequential", rows: true },
  { words: ["bytes"], order: "sequential", edited: true },
  { words: ["bytes+"], order: "sequential" },
  { words: ["same", "bytes"], order: "sequential", edited: true, rows: true },
  { words: ["same", "same"], order: "parallel" },
  { words: ["same+", "same"], order: "sequential", edited: true, rows: true },
  { words: ["longest", "first+"], order: "parallel" },
  { words: [], order: "sequential" },
];
// The template's rows behind the last message.
const tail = 5;
const questions = [
  "Which fruit does Livia Ridley prefer?",
  "Tell me the profession of Thea Ibsen.",
  "And why is that so?",
  "Hm.",
];

for (const { words, order, edited } of settings) {
  const name = `${words.join(", ") || "no sharer"} (${order})`;

  check(`${name}: turn after turn only what is new`, async () => {
    const channel = channelOf(words, { order });
    const messages = [{ role: "system", content: "Answer briefly." }];
    let before = 0;
    // The sharers' own: their templates may be cut into other tokens than the receiver's.
    let theirs = words.map(() => 0);
    for (const [turn, content] of questions.entries()) {
      messages.push({ role: "user", content });
      const { receiver: reused, sharers: read, rows, reports } = await compare(channel, words, order, messages);
      if (turn === 0) assert.equal([reused, ...read], [0, ...words.map(() => 0)]);
      else {
        assert.ok(reused >= before - tail, `${reused} of ${before} rows in turn ${turn}`);
        // Read row for row and fused as it comes, the answer was what a message is.
        if (words.join() === "same+") assert.ok(reused > before, `${reused} of ${before} rows and the answer's`);
        for (const [i, one] of read.entries()) {
          assert.ok(one >= theirs[i] - tail, `${one} of ${theirs[i]} of the sharer's rows`);
        }
      }
      for (const [i, { gates }] of reports[0].entries()) {
        for (const [k, gate] of gates.entries()) {
          const expected = reports[1][i].gates[k];
          close([gate.keyWeight, gate.valueWeight], [expected.keyWeight, expected.valueWeight], "weights of all turns");
        }
      }
      theirs = (await planOf(channel, messages, null)).sharers.map(({ ids }) => ids.length);
      const done = await channel.generate(messages, { maxNewTokens: 6, eos: [] }).done();
      // The same prompt again: all but the last section.
      assert.ok(done.timings.reused.receiver >= rows - tail);
      assert.equal(done.timings.reused.sharers.length, words.length);
      const fresh = connect(receiver, linksOf(words), { order, prefixes: false });
      assert.is(await fresh.generate(messages, { maxNewTokens: 6, eos: [] }).text(), done.text);
      fresh.dispose();
      messages.push({ role: "assistant", content: done.text });
      before = rows;
    }
  });

  if (!edited) continue;
  check(`${name}: any history, edited anywhere`, async () => {
    const content = fc.constantFrom("Which fruit?", "Livia Ridley likes it.", "no", "Why, why, why? Tell me at once.");
    const turn = fc.record({ kind: fc.constantFrom("go on", "edit", "cut", "answer"), at: fc.nat(9), content });
    await fc.assert(
      fc.asyncProperty(fc.array(turn, { minLength: 2, maxLength: 5 }), async (turns) => {
        const channel = channelOf(words, { order });
        const messages = [{ role: "user", content: "Which fruit?" }];
        for (const { kind, at, content: text } of turns) {
          const place = at % messages.length;
          if (kind === "edit") messages[place] = { ...messages[place], content: text };
          else if (kind === "cut") messages.splice(place + 1);
          else if (kind === "answer") {
            const answer = await channel.generate(messages, { maxNewTokens: 3, eos: [] }).text();
            messages.push({ role: "assistant", content: answer });
          }
          if (messages.at(-1).role === "assistant") messages.push({ role: "user", content: text });
          else if (kind === "go on")
            messages.push({ role: "assistant", content: text }, { role: "user", content: "no" });
          await compare(channel, words, order, messages);
        }
        channel.dispose();
      }),
      { numRuns: 3 },
    );
  });
}

/** Prompts in tokens of two letters, so that they have much in common, with sections and rows of their own. */
function tokenPrompts(links, bare) {
  return fc
    .record({
      tokens: fc.array(fc.constantFrom(11, 12), { minLength: 2, maxLength: 14 }),
      cuts: fc.array(fc.nat(13), { maxLength: 3 }),
      masks: fc.array(fc.nat(2 ** links - 1), { minLength: 4, maxLength: 4 }),
      own: fc.array(fc.tuple(fc.constantFrom(0, 0, 1, 2), fc.constantFrom(0, 0, 1), fc.constantFrom(11, 11, 14)), {
        minLength: links,
        maxLength: links,
      }),
      plain: fc.boolean(),
    })
    .map(({ tokens, cuts, masks, own, plain }) => {
      if (plain && bare) return { tokens: receiver.tokens(tokens) };
      const ends = [...new Set([...cuts.filter((cut) => cut > 0 && cut < tokens.length), tokens.length])];
      ends.sort((a, b) => a - b);
      const sections = ends.map((end, i) => {
        const chosen = Array.from({ length: links }, (_, link) => link).filter((link) => (masks[i] >> link) & 1);
        return { length: end - (ends[i - 1] ?? 0), links: chosen };
      });
      // A sharer's reading: some tokens before the receiver's, and some of the first rows belong to none.
      const read = own.map(([more, skip, letter]) => {
        const ahead = Array.from({ length: more }, () => 13);
        const row = {
          receiver: { start: skip, end: tokens.length },
          sharer: { start: more + skip, end: more + tokens.length },
        };
        return { tokens: Uint32Array.from([...ahead, ...tokens].map((id) => (id === 11 ? letter : id))), rows: [row] };
      });
      return { tokens: receiver.tokens(tokens), sections, sharers: read };
    });
}

for (const { words, order } of settings.filter(({ rows }) => rows)) {
  check(`${words.join(", ")} (${order}): any tokens, sections and rows`, async () => {
    let reused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          tokenPrompts(
            words.length,
            words.every((word) => word.startsWith("same")),
          ),
          { minLength: 2, maxLength: 5 },
        ),
        async (prompts) => {
          const channel = channelOf(words, { order });
          for (const prompt of prompts) {
            const { receiver: rows } = await compare(channel, words, order, prompt);
            reused += rows;
            const done = await channel.generate(prompt, { maxNewTokens: 3, eos: [] }).done();
            const grown = (await receiver.encodeText(done.text)).filter((id) => id < sharers[0].sharer.shape.vocab);
            // What was generated as the prompt's own rows.
            const tokens = receiver.tokens([...prompt.tokens, ...grown, 11]);
            const rest = tokens.length - prompt.tokens.length;
            const sections = prompt.sections && [...prompt.sections, { length: rest, links: [] }];
            const read = prompt.sharers?.map((one) => ({
              ...one,
              tokens: Uint32Array.from([...one.tokens, ...grown, 11]),
            }));
            const next = { tokens, ...(sections && { sections }), ...(read && { sharers: read }) };
            reused += (await compare(channel, words, order, next)).receiver;
          }
          channel.dispose();
        },
      ),
      { numRuns: 8 },
    );
    assert.ok(reused > 30, `${reused} rows reused in all`);
  });
}

const ask = (content) => [{ role: "user", content }];
const answer = (channel, messages, options) => channel.generate(messages, { maxNewTokens: 4, eos: [], ...options });

check("what changes in the history ends the reuse there", async () => {
  const channel = channelOf(["bytes"]);
  const messages = questions.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content })).slice(0, 3);
  const first = await channel.prefill(messages);
  first.cache.dispose();
  const reused = [];
  for (const place of [2, 1, 0]) {
    const edited = messages.map((message, i) => (i === place ? { ...message, content: "Else." } : message));
    const { cache, reused: had } = await channel.prefill(edited);
    cache.dispose();
    reused.push(had.receiver);
  }
  assert.ok(reused[0] > reused[1] && reused[1] > reused[2], reused.join(" "));
});

check("one store for several channels: only the same links share fused rows, all share sharers' rows", async () => {
  const store = keep(createPrefixStore());
  const reused = async (words, options) => {
    const channel = channelOf(words, { prefixes: store, ...options });
    const { cache, reused: had } = await channel.prefill(ask(questions[0]));
    cache.dispose();
    channel.dispose();
    return had;
  };
  const none = await reused(["bytes", "bytes"]);
  assert.equal(none, { receiver: 0, sharers: [0, 0] });
  const again = await reused(["bytes", "bytes"]);
  assert.ok(again.receiver > 0 && again.sharers[1] > 0);
  const other = await reused(["bytes", "bytes"], { order: "parallel" });
  assert.is(other.receiver, 0);
  assert.equal(other.sharers, again.sharers);
  const one = await reused(["bytes"]);
  assert.is(one.receiver, 0);
  assert.is(one.sharers[0], again.sharers[0]);
  // Where the response is fused too, the prompt is fused as ever.
  const response = await reused(["bytes+"]);
  assert.is(response.receiver, again.receiver);
  assert.ok(store.entries.some(({ fused }) => fused) && store.entries.some(({ fused }) => !fused));
});

check("the receiver's tokens are the same, a sharer's are not", async () => {
  const words = ["same", "same"];
  const channel = channelOf(words);
  const list = [11, 12, 13, 14, 15, 16];
  const prompt = (changed, row) => {
    const other = list.map((id, i) => (i === changed ? 20 : id));
    const read = [list, other].map((ids) => ({ tokens: receiver.tokens(ids) }));
    const sections =
      row === undefined ? undefined : [1, 2, 2, 1].map((length, i) => ({ length, links: i < 3 ? [0, 1] : [] }));
    return { tokens: receiver.tokens(list), sharers: read, ...(sections && { sections }) };
  };
  for (const [changed, row, expected] of [
    [-1, undefined, 0],
    [-1, undefined, 5],
    [2, undefined, 2],
    [0, undefined, 0],
    // In sections rows can be reused up to where one begins to be fused.
    [-1, 1, 1],
    [2, 1, 1],
    [4, 1, 3],
  ]) {
    const { receiver: rows } = await compare(channel, words, "sequential", prompt(changed, row));
    assert.is(rows, expected, `${changed} ${row}`);
  }
});

check("what a caller put into a store is not a channel's", async () => {
  const store = keep(createPrefixStore());
  const { tokens } = await receiver.encode(questions[0]);
  const cache = keep(await receiver.prefill(tokens));
  const { kvHeads, headDim } = receiver.shape;
  for (let layer = 0; layer < receiver.shape.layers; layer++)
    cache.write(layer, "value", 0, new Float32Array(tokens.length * kvHeads * headDim));
  store.put(cache);
  await compare(channelOf(["same"], { prefixes: store }), ["same"], "sequential", questions[0]);
  await compare(channelOf(["same+"], { prefixes: store }), ["same+"], "sequential", questions[0]);
});

check("nothing is kept: prefixes false, evaluation, a budget of nothing", async () => {
  for (const prefixes of [false, keep(createPrefixStore({ bytes: 0 }))]) {
    const channel = channelOf(["bytes"], { prefixes });
    for (let turn = 0; turn < 2; turn++) {
      const { timings } = await answer(channel, ask(questions[0])).done();
      assert.equal(timings.reused, { receiver: 0, sharers: [0] });
      assert.is(liveHandles().cache, 0);
    }
  }
  const store = keep(createPrefixStore());
  const channel = channelOf(["bytes"], { prefixes: store });
  const task = {
    name: "two",
    method: "exact",
    questions: questions.slice(0, 2).map((content, i) => ({ id: `${i}`, messages: ask(content), answer: "no" })),
  };
  for await (const event of evaluate(channel, task)) assert.ok(event);
  assert.is(store.entries.length, 0);
});

check("aborts and errors leave nothing that is not whole", async () => {
  const store = keep(createPrefixStore());
  const channel = channelOf(["same+", "bytes"], { prefixes: store });
  const long = ask(questions.join(" ").repeat(6));
  let late = 0;
  for (let i = 0; i < 12; i++) {
    const controller = new AbortController();
    const work = channel.prefill(long, { signal: controller.signal });
    const timer = setTimeout(() => controller.abort(new Error("enough")), i * 2);
    const result = await work.catch(({ message }) => message);
    clearTimeout(timer);
    if (result === "enough") assert.is(store.entries.length, 0);
    else {
      result.cache.dispose();
      store.clear();
      late += 1;
    }
  }
  assert.ok(late < 12, "no run was aborted");
  // In the middle of an answer: what was read until then is whole, and the next turn goes on from it.
  const controller = new AbortController();
  const messages = ask(questions[0]);
  let text = "";
  const failed = await (async () => {
    for await (const event of answer(channel, messages, { maxNewTokens: 50, signal: controller.signal })) {
      text += event.text;
      if (event.index === 5) controller.abort(new Error("enough"));
    }
  })().catch(({ message }) => message);
  assert.is(failed, "enough");
  assert.ok(store.entries.length > 0);
  const next = [...messages, { role: "assistant", content: text }, ...ask(questions[1])];
  const { receiver: rows } = await compare(channel, ["same+", "bytes"], "sequential", next);
  assert.ok(rows > 0);
});

check("two at once on one channel are both right", async () => {
  const channel = channelOf(["same", "bytes"]);
  const alone = channelOf(["same", "bytes"], { prefixes: false });
  const turns = [questions, questions.toReversed(), [questions[0], "And?"]];
  const talk = async (one, contents) => {
    const messages = [];
    for (const content of contents) {
      messages.push({ role: "user", content });
      messages.push({ role: "assistant", content: await answer(one, messages).text() });
    }
    return messages.map(({ content }) => content);
  };
  const expected = [];
  for (const contents of turns) expected.push(await talk(alone, contents));
  assert.equal(await Promise.all(turns.map((contents) => talk(channel, contents))), expected);
});

check("a small budget holds, whatever is said", async () => {
  const first = channelOf(["bytes"]);
  const { cache } = await first.prefill(ask(questions[0]));
  const { bytes } = cache;
  cache.dispose();
  first.dispose();
  const store = keep(createPrefixStore({ bytes: 3 * bytes }));
  const channel = channelOf(["bytes"], { prefixes: store });
  const messages = [];
  for (const content of questions) {
    messages.push({ role: "user", content });
    await compare(channel, ["bytes"], "sequential", messages);
    assert.ok(store.bytes <= store.limit, `${store.bytes} of ${store.limit}`);
  }
});

check("what ends with what", async () => {
  const store = createPrefixStore();
  const pair = (await links(folder("sharer"), [folder("fuser")]))[0];
  const channel = keep(connect(receiver, [pair], { prefixes: store }));
  await answer(channel, ask(questions[0])).done();
  assert.is(store.entries.length, 2);
  await pair.fuser.dispose();
  assert.equal(
    store.entries.map(({ fused }) => fused),
    [false],
  );
  await pair.sharer.dispose();
  assert.is(store.entries.length, 0);
  const other = channelOf(["bytes"], { prefixes: store });
  await answer(other, ask(questions[0])).done();
  const running = answer(other, ask(questions[1]));
  const events = running[Symbol.asyncIterator]();
  await events.next();
  store.dispose();
  assert.is((await running.done()).timings.newTokens, 4);
  assert.is(liveHandles().cache, 0);
  await fails(other.prefill(ask("hello")), "DISPOSED", /store/);
  const own = channelOf(["bytes"]);
  await answer(own, ask(questions[0])).done();
  assert.ok(liveHandles().cache > 0);
  own.dispose();
  assert.is(liveHandles().cache, 0);
});

test.run();
