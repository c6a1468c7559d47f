// Several turns on one channel: what is reused, and that the outcome is that of a fresh run.
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { planOf } from "../dist/evaluate/subject.js";
import { connect } from "../dist/index.js";
import { answer, channelOf, check, close, compare, linksOf, questions, receiver, sharers } from "./support/turns.mjs";

fc.configureGlobal({ includeErrorInReport: true });

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

test.run();
