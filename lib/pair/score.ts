import { connect, type Fuser } from "../index.js";
import { Random } from "../random.js";
import { askAll, askAlone, askChannel, askControl, type DemoAnswer, mismatches, textChannel } from "./ask.js";
import type { PairQuestion } from "./questions.js";
import type { World } from "./world.js";

/** A share from 0 to 1 with its 95 % interval over people. */
export interface Figure {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

const systems = ["receiver", "sharer", "text", "c2c"] as const;
export type System = (typeof systems)[number];
const controls = ["mismatched", "zeroed", "noise"] as const;
export type ControlName = (typeof controls)[number];

/** How a pair does: on the sharer's people (`foreign`), on the receiver's own, and on both (`mix`, as many questions of each). */
export interface PairScore {
  readonly questions: number;
  readonly foreign: Readonly<Record<System | ControlName, Figure>>;
  readonly own: Readonly<Record<System, Figure>>;
  readonly mix: Readonly<Record<System, Figure>>;
  /** The sharer read the question about another held-out person: the answer is that one's (`followed`), or the right one (`kept`). */
  readonly swapped: { readonly followed: Figure; readonly kept: Figure };
}

interface Outcome {
  readonly person: string;
  readonly correct: boolean;
}

/** Asks every question of every system and control. `onPart` hears of each part that is done. */
export async function scorePair(
  fuser: Fuser,
  questions: readonly PairQuestion[],
  world: World,
  seed: bigint,
  onPart: (part: string) => void = () => undefined,
): Promise<PairScore> {
  const { receiver, sharer } = fuser.pair;
  const foreign = questions.filter(({ who }) => who === "sharer");
  const own = questions.filter(({ who }) => who === "receiver");
  using channel = connect(receiver, [{ sharer, fuser }]);
  using byText = textChannel(receiver, sharer, questions);
  const ask: Readonly<Record<System, (question: PairQuestion) => Promise<DemoAnswer>>> = {
    receiver: (question) => askAlone(receiver, question),
    sharer: (question) => askAlone(sharer, question),
    text: (question) => askChannel(byText, question),
    c2c: (question) => askChannel(channel, question),
  };
  const figure = (outcomes: readonly Outcome[]) => clustered(outcomes, new Random(seed, "intervals"));
  const outcomes = async (list: readonly PairQuestion[], how: (question: PairQuestion) => Promise<DemoAnswer>) => {
    const answers = await askAll(list, how, () => undefined);
    return list.map(({ person }, i): Outcome => ({ person, correct: answers[i]?.correct ?? false }));
  };
  const [onForeign, onOwn, onMix] = [{}, {}, {}] as [
    Record<string, Figure>,
    Record<string, Figure>,
    Record<string, Figure>,
  ];
  for (const system of systems) {
    const [away, home] = [await outcomes(foreign, ask[system]), await outcomes(own, ask[system])];
    const even = Math.min(away.length, home.length);
    onForeign[system] = figure(away);
    onOwn[system] = figure(home);
    onMix[system] = figure([...away.slice(0, even), ...home.slice(0, even)]);
    onPart(system);
  }
  const partners = await mismatches(fuser, foreign);
  const random = new Random(seed, "controls");
  const noise = (mean: number, deviation: number) => random.normal(mean, deviation);
  const control: Readonly<Record<ControlName, (question: PairQuestion) => Promise<DemoAnswer>>> = {
    mismatched: (question) => askControl(fuser, question, partners.get(question.id) ?? "zeroed"),
    zeroed: (question) => askControl(fuser, question, "zeroed"),
    noise: (question) => askControl(fuser, question, noise),
  };
  for (const name of controls) {
    onForeign[name] = figure(await outcomes(foreign, control[name]));
    onPart(name);
  }
  const swaps = foreign.map((question) => ({ ...question, ...swap(question, foreign, world, random) }));
  const said = await askAll(
    swaps,
    (one) => askControl(fuser, one, { question: one.asked }),
    () => undefined,
  );
  onPart("swapped");
  return {
    questions: questions.length,
    foreign: onForeign as PairScore["foreign"],
    own: onOwn as PairScore["own"],
    mix: onMix as PairScore["mix"],
    swapped: {
      followed: figure(swaps.map(({ person, other }, i) => ({ person, correct: said[i]?.text === other }))),
      kept: figure(swaps.map(({ person, answer }, i) => ({ person, correct: said[i]?.text === answer }))),
    },
  };
}

/** The same question about another of these people whose answer differs, and that answer. */
function swap(question: PairQuestion, among: readonly PairQuestion[], world: World, random: Random) {
  const people = [...new Set(among.map(({ person }) => person))];
  const others = people.filter((name) => world.facts[name]?.[question.attribute] !== question.answer);
  const name = random.pick(others);
  return {
    asked: question.question.replace(question.person, name),
    other: world.facts[name]?.[question.attribute] ?? "",
  };
}

/** Resampled populations of people. */
const RESAMPLES = 2000;

/**
 * The share of right answers with a percentile bootstrap interval over people (Efron and Tibshirani, 1993): answers about one person
 * hang together, so whole people are drawn.
 */
export function clustered(outcomes: readonly Outcome[], random: Random): Figure {
  const people = new Map<string, { right: number; n: number }>();
  for (const { person, correct } of outcomes) {
    const one = people.get(person) ?? { right: 0, n: 0 };
    people.set(person, { right: one.right + (correct ? 1 : 0), n: one.n + 1 });
  }
  const groups = [...people.values()];
  const share = (drawn: readonly { readonly right: number; readonly n: number }[]) =>
    drawn.reduce((sum, { right }) => sum + right, 0) /
    Math.max(
      1,
      drawn.reduce((sum, { n }) => sum + n, 0),
    );
  if (groups.length === 0) return { value: 0, low: 0, high: 1 };
  const shares = Array.from({ length: RESAMPLES }, () => share(groups.map(() => random.pick(groups)))).sort(
    (a, b) => a - b,
  );
  const at = (part: number) => shares[Math.min(RESAMPLES - 1, Math.floor(part * RESAMPLES))] ?? 0;
  return { value: share(groups), low: at(0.025), high: at(0.975) };
}
