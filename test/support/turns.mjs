// Channels that several turns are held on, and what each of them is compared with: a fresh run.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { connect, loadFuser, loadModel } from "../../dist/index.js";
import { changedFuser, ownSharer, widen } from "../fusers.mjs";
import { keeping } from "./handles.mjs";

export const folder = (name) => ({
  kind: "folder",
  path: fileURLToPath(new URL(`../../models/pair/${name}`, import.meta.url)),
});
const float32 = { dtype: "float32" };
/** Filled before the first test. */
export let receiver;
export let sharers;
let twins;
const loaded = [];
let folders = "";
/** A sharer for each fuser. */
export async function links(model, fusers) {
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
export const { keep, check } = keeping(test);
test.after(async () => {
  for (const handle of loaded) await handle.dispose();
  await rm(folders, { recursive: true });
});

/** As near as fresh runs in other pieces are. */
export function close(actual, expected, what) {
  assert.is(actual.length, expected.length, what);
  const apart = actual.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i])), 0);
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  assert.ok(apart < 1e-4 + 1e-5 * largest, `${what}: ${apart} apart, ${largest} at most`);
}
/** Links from short words: a strategy for each sharer, "+" where the response is fused too. */
export function linksOf(words) {
  return words.map((word, i) => {
    const span = word.endsWith("+") ? "prompt-and-response" : "prompt";
    const align = word.replace("+", "");
    return { ...(align === "same" ? twins : sharers)[i], align, span };
  });
}
export function channelOf(words, options) {
  return keep(connect(receiver, linksOf(words), options));
}

/** The prompt on a channel and on a fresh one: caches, logits and reports agree. Returns what was reused. */
export async function compare(channel, words, order, prompt) {
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

export const questions = [
  "Which fruit does Livia Ridley prefer?",
  "Tell me the profession of Thea Ibsen.",
  "And why is that so?",
  "Hm.",
];
export const ask = (content) => [{ role: "user", content }];
export const answer = (channel, messages, options) =>
  channel.generate(messages, { maxNewTokens: 4, eos: [], ...options });
