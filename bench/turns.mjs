// The last turn of a conversation on the pair: with what earlier turns left, and fresh.
//   node bench/turns.mjs [TURNS]
import { fileURLToPath } from "node:url";
import { connect, loadFuser, loadModel } from "../dist/index.js";
import { median } from "./median.mjs";

const turns = Number(process.argv[2] ?? 24);
const repeats = 7;
const source = (name) => ({ kind: "folder", path: fileURLToPath(new URL(`../models/pair/${name}`, import.meta.url)) });

const receiver = await loadModel(source("receiver"));
const sharer = await loadModel(source("sharer"));
const fuser = await loadFuser(source("fuser"), { receiver, sharer });
const question = (turn) => `${turn}: which fruit does Livia Ridley prefer, and what is the profession of Thea Ibsen?`;

for (const span of ["prompt", "prompt-and-response"]) {
  const times = { fresh: [], next: [] };
  let rows = {};
  for (let i = 0; i < repeats; i++) {
    const messages = [];
    const links = [{ sharer, fuser, span }];
    const channels = { fresh: connect(receiver, links, { prefixes: false }), next: connect(receiver, links) };
    for (let turn = 0; turn < turns; turn++) {
      messages.push({ role: "user", content: question(turn) });
      if (turn === turns - 2) (await channels.next.prefill(messages)).cache.dispose();
      if (turn < turns - 1)
        messages.push({ role: "assistant", content: "She likes the mango; the other is a cook by trade." });
    }
    for (const [name, channel] of Object.entries(channels)) {
      const started = performance.now();
      const { cache, reused } = await channel.prefill(messages);
      times[name].push(performance.now() - started);
      rows = { all: cache.length, ...reused };
      cache.dispose();
      channel.dispose();
    }
  }
  const [fresh, next] = [median(times.fresh), median(times.next)];
  const of = `${rows.receiver} of ${rows.all} rows reused, the sharer's ${rows.sharers[0]}`;
  console.log(
    `${span}: fresh ${fresh.toFixed(1)} ms, next turn ${next.toFixed(1)} ms (${(fresh / next).toFixed(1)} x); ${of}`,
  );
}
for (const handle of [fuser, sharer, receiver]) await handle.dispose();
