import type { BarLine } from "./bar.js";
import type { Built } from "./build.js";
import type { ControlName, Figure, PairScore, System } from "./score.js";

/** What the card says beside the scores. */
export interface CardFacts {
  readonly seed: bigint;
  readonly bar: readonly BarLine[];
  /** Weights of the two models and of the fuser. */
  readonly weights: Readonly<Record<"receiver" | "sharer" | "fuser", number>>;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const figure = ({ value, low, high }: Figure): string =>
  `${percent(value)} (${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)})`;
const millions = (count: number): string => `${(count / 1e6).toFixed(2)} M`;

const systems: Readonly<Record<System, string>> = {
  receiver: "receiver alone",
  sharer: "sharer alone",
  text: "text: the sharer writes a biography, the receiver reads it",
  c2c: "**C2C**",
};
const controls: Readonly<Record<ControlName, string>> = {
  mismatched: "C2C, another question's sharer cache",
  zeroed: "C2C, a zeroed sharer cache",
  noise: "C2C, noise as sharer cache",
};

/** The card of a pair: how it was made, what it reaches on people that the fuser never saw, and what it is not. */
export function pairCard({ world, probes, fusers, test }: Built, { seed, bar, weights }: CardFacts): string {
  const [kept] = fusers;
  const met = bar.filter((line) => line.met).length;
  return `# The embedded pair

Made by \`npm run make:pair -- --seed ${seed}\`: a receiver (Qwen3-style, ${millions(weights.receiver)} weights), a sharer (Qwen2-style, ${millions(weights.sharer)}) and a fuser for two of the receiver's layers (${millions(weights.fuser)}), trained from scratch in a made-up world of people with a city, a job, a pet, an instrument and a fruit. The sharer knows ${world.train.length + world.validation.length + world.test.length + world.final.length} people, the receiver ${world.receiverTrain.length + world.receiverValidation.length + world.receiverTest.length + world.receiverFinal.length} others; about strangers the receiver says "unknown". The fuser was trained on ${world.train.length} and ${world.receiverTrain.length} of them. \`world.json\` holds everybody and the splits.

Both models were prepared: the sharer was trained so that a fact is in its cache before the prompt ends, the receiver to say "unknown". The card shows content that crosses without text, at a fraction of the time. It does not show that C2C is the best way to combine these two: asking the receiver first and the sharer on "unknown" is right more often. Apache-2.0, as the package.

Figures are shares of right answers, one word, exact match, greedy, in float32; in brackets 95 % intervals over people.

## On people that were asked once

${world.final.length} of the sharer's people and ${world.receiverFinal.length} of the receiver's, at whom nobody looked while the recipe was worked on; the fuser that is shipped, seed ${kept?.seed ?? seed}.

${kept ? table(kept.final) : "No fuser was trained: a probe says that none would work."}

## On questions.jsonl

${world.test.length} of the sharer's people and ${world.receiverTest.length} of the receiver's, about whom \`npm run demo\` and the audit ask; the fuser never saw them, but their figures were looked at while the recipe was worked on.

${test ? table(test) : "Not asked."}

## The bar

On the people asked once, over ${fusers.length} fuser${fusers.length === 1 ? "" : "s"} (${fusers.map((one) => `seed ${one.seed}`).join(", ")}): ${met} of ${bar.length} lines are met.

| | bar | mean | lowest to highest | |
| --- | --- | --- | --- | --- |
${bar.map((line) => `| ${line.name} | ${line.limit} | ${percent(line.mean)} | ${percent(line.low)} to ${percent(line.high)} | ${line.met ? "met" : "**missed**"} |`).join("\n")}

## Probes

A linear map from the sharer's last layer at the question's end gives the answer to ${percent(probes.answer)} of the validation people's questions (chance 5.5 %). A linear map from the receiver's fused layers tells whom it knows with an area under the curve of ${probes.known.toFixed(3)}.
`;
}

function table({ foreign, own, mix, swapped }: PairScore): string {
  const rows = (Object.keys(systems) as System[]).map(
    (name) => `| ${systems[name]} | ${figure(foreign[name])} | ${figure(own[name])} | ${figure(mix[name])} |`,
  );
  const checks = (Object.keys(controls) as ControlName[]).map(
    (name) => `| ${controls[name]} | ${figure(foreign[name])} | | |`,
  );
  return [
    "| | sharer's people | receiver's people | even mix |",
    "| --- | --- | --- | --- |",
    ...rows,
    ...checks,
    "",
    `With the sharer's cache of the same question about another held-out person the answer is that person's in ${figure(swapped.followed)}, the question's own in ${figure(swapped.kept)}.`,
  ].join("\n");
}
