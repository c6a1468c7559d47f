import { mismatched, noise, zeroed } from "../audit/controls.js";
import { partners } from "../audit/mismatch.js";
import { ANSWER_TOKENS, textChannel } from "../demo/pair.js";
import { type Answered, answers } from "../evaluate/evaluate.js";
import { controlled, type Subject, subjectOf } from "../evaluate/subject.js";
import { connect, type Fuser, type Question } from "../index.js";
import { Random } from "../random.js";
import type { PairQuestion } from "./questions.js";
import type { World } from "./world.js";

/** Several generations run at once: their decode steps share batches. */
const CONCURRENT = 32;

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
  using byText = textChannel(receiver, sharer);
  const subjects: Readonly<Record<System, Subject>> = {
    receiver: subjectOf(receiver),
    sharer: subjectOf(sharer),
    text: subjectOf(byText),
    c2c: subjectOf(channel),
  };
  const figure = (outcomes: readonly Outcome[]) => clustered(outcomes, new Random(seed, "intervals"));
  const asked = new Map(questions.map((question) => [question, toQuestion(question)]));
  const of = (question: PairQuestion): Question => asked.get(question) ?? toQuestion(question);
  const outcomes = async (list: readonly PairQuestion[], subject: Subject): Promise<readonly Outcome[]> => {
    const said = await askAll(subject, list.map(of));
    return list.map(({ person }, i) => ({ person, correct: said[i]?.correct ?? false }));
  };
  const [onForeign, onOwn, onMix] = [{}, {}, {}] as [
    Record<string, Figure>,
    Record<string, Figure>,
    Record<string, Figure>,
  ];
  for (const system of systems) {
    const [away, home] = [await outcomes(foreign, subjects[system]), await outcomes(own, subjects[system])];
    const even = Math.min(away.length, home.length);
    onForeign[system] = figure(away);
    onOwn[system] = figure(home);
    onMix[system] = figure([...away.slice(0, even), ...home.slice(0, even)]);
    onPart(system);
  }
  const paired = await partners(channel, foreign.map(of));
  const control = { mismatched: mismatched(channel, paired), zeroed, noise };
  for (const name of controls) {
    // A question without a partner cannot be mismatched.
    const list = name === "mismatched" ? foreign.filter((question) => paired.has(of(question))) : foreign;
    onForeign[name] = figure(await outcomes(list, controlled(channel, control[name])));
    onPart(name);
  }
  const random = new Random(seed, "swaps");
  const swaps = foreign.map((question) => ({ question, ...swap(question, foreign, world, random) }));
  const swapped = new Map(
    swaps.map(({ question, heard }) => [of(question), toQuestion({ ...question, question: heard })]),
  );
  const said = await askAll(controlled(channel, mismatched(channel, swapped)), foreign.map(of));
  onPart("swapped");
  const share = (right: (one: (typeof swaps)[number]) => string): Figure =>
    figure(swaps.map((one, i) => ({ person: one.question.person, correct: said[i]?.predicted === right(one) })));
  return {
    questions: questions.length,
    foreign: onForeign as PairScore["foreign"],
    own: onOwn as PairScore["own"],
    mix: onMix as PairScore["mix"],
    swapped: {
      followed: share(({ other }) => other),
      kept: share(({ question }) => question.answer),
    },
  };
}

function toQuestion({ id, question, ask, answer }: PairQuestion): Question {
  return { id, messages: [{ role: "user", content: question }], ask, answer };
}

async function askAll(subject: Subject, questions: readonly Question[]): Promise<readonly Answered[]> {
  const task = { name: "pair", questions, method: "exact", maxNewTokens: ANSWER_TOKENS } as const;
  const said: Answered[] = [];
  for await (const answered of answers(subject, task, { batch: CONCURRENT })) said.push(answered);
  return said;
}

/** The same question about another of these people whose answer differs, and that answer. */
function swap(question: PairQuestion, among: readonly PairQuestion[], world: World, random: Random) {
  const people = [...new Set(among.map(({ person }) => person))];
  const others = people.filter((name) => world.facts[name]?.[question.attribute] !== question.answer);
  const name = random.pick(others);
  return {
    heard: question.question.replace(question.person, name),
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
