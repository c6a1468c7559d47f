// What channels keep of their turns: for whom, for how long, and what is not kept.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { connect, createPrefixStore, evaluate } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";
import { answer, ask, channelOf, check, compare, folder, keep, links, questions, receiver } from "./support/turns.mjs";
import { fails } from "./support.mjs";

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
