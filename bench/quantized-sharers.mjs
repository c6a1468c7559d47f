// What it costs to keep the sharer's cache in 8 or 4 bits: bytes, the rows' own error, and how far the receiver's logits and answers
// move, on questions of the embedded pair.
//   node bench/quantized-sharers.mjs [--questions 300]
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { fuse, loadFuser, loadModel } from "../dist/index.js";

const { values } = parseArgs({ options: { questions: { type: "string", default: "300" } } });
const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
const source = (name) => ({ kind: "folder", path: join(pair, name) });
const receiver = await loadModel(source("receiver"));
const sharer = await loadModel(source("sharer"));
const fuser = await loadFuser(source("fuser"), { receiver, sharer });
const questions = readFileSync(join(pair, "questions.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line))
  .filter(({ who }) => who === "sharer")
  .slice(0, Number(values.questions));
const forms = ["plain", "int8", "int4"];
const sums = Object.fromEntries(
  forms.map((form) => [form, { bytes: 0, saved: 0, key: 0, value: 0, off: 0, size: 0, same: 0, right: 0 }]),
);

/** The logits of the prompt's last row, and the answer, with this sharer cache. */
async function ask(alignment, rows) {
  const { tokens, positions } = alignment.receiver;
  const { end } = alignment.fused.at(-1).receiver;
  const read = (from, to) => receiver.tokens(tokens.slice(from, to));
  const cache = await receiver.prefill(read(0, end), { positions: positions.slice(0, end) });
  await fuse(cache, [{ fuser, sharer: rows, spans: alignment.fused }]);
  const last = tokens.length - 1;
  await receiver.prefill(read(end, last), { into: cache, positions: positions.slice(end, last) });
  const fork = cache.fork();
  const logits = await receiver.logits(fork, read(last), { positions: positions.slice(last) });
  const text = await receiver.generate(cache, read(last), { maxNewTokens: 6 }).text();
  fork.dispose();
  cache.dispose();
  return { logits, text: text.trim() };
}

for (const { question, answer } of questions) {
  const alignment = await fuser.align(await receiver.encode(question));
  const plain = await sharer.prefill(alignment.sharer.tokens, { positions: alignment.sharer.positions });
  let exact;
  for (const form of forms) {
    const made = form === "plain" ? undefined : await plain.quantize(form);
    const said = await ask(alignment, made?.cache ?? plain);
    exact ??= said;
    const sum = sums[form];
    sum.bytes += made?.report.bytes ?? 0;
    sum.saved += made?.report.saved ?? 0;
    sum.key += made?.report.keyError.relative ?? 0;
    sum.value += made?.report.valueError.relative ?? 0;
    sum.off += said.logits.reduce((total, x, i) => total + (x - exact.logits[i]) ** 2, 0);
    sum.size += exact.logits.reduce((total, x) => total + x ** 2, 0);
    sum.same += said.text === exact.text;
    sum.right += said.text.includes(answer);
    made?.cache.dispose();
  }
  plain.dispose();
}
const n = questions.length;
const percent = (share) => `${(100 * share).toFixed(share < 0.01 && share > 0 ? 2 : 1)} %`;
console.log(`${n} questions`);
console.log("| sharer's rows | bytes | key error | value error | logits move by | same answer | right |");
console.log("| --- | --- | --- | --- | --- | --- | --- |");
for (const form of forms) {
  const { bytes, saved, key, value, off, size, same, right } = sums[form];
  const share = bytes === 0 ? "100 %" : percent(bytes / (bytes + saved));
  const cells = [
    share,
    percent(key / n),
    percent(value / n),
    percent(Math.sqrt(off / size)),
    percent(same / n),
    percent(right / n),
  ];
  console.log(`| ${form} | ${cells.join(" | ")} |`);
}
for (const handle of [fuser, sharer, receiver]) await handle.dispose();
