import type { Random } from "../random.js";
import type { Sample } from "../types.js";
import { ask } from "./documents.js";
import { attributes } from "./words.js";
import type { World } from "./world.js";

/** How often the kinds of fuser samples are drawn; shares from 0 to 1. */
export interface FuserMixture {
  /** Questions about the receiver's own people; the others are about people whom the sharer knows. */
  readonly own: number;
  /** Of the own ones: the sharer reads about somebody else, whom it does not know. */
  readonly ownElsewhere: number;
  /** Of the others: the sharer reads about another person than the receiver, and the answer is that one's. */
  readonly swapped: number;
  /** Of the swapped ones: the receiver reads a name that nobody knows. */
  readonly stranger: number;
}

/**
 * An endless stream about the two train splits. That the sharer mostly reads about another person than the receiver makes the fuser
 * take the answer from the sharer's cache; a name in the receiver's question tells it nothing.
 */
export function* fuserSamples(world: World, mixture: FuserMixture, random: Random): Generator<Sample, never> {
  for (;;) yield random.chance(mixture.own) ? ownSample(world, mixture, random) : sharerSample(world, mixture, random);
}

function ownSample(world: World, { ownElsewhere }: FuserMixture, random: Random): Sample {
  const person = random.pick(world.receiverTrain);
  const others = random.chance(0.5) ? world.strangers : world.receiverTrain;
  const heard = random.chance(ownElsewhere) ? random.pick(others) : person;
  return sample(world, { person, heard, answer: person }, random);
}

function sharerSample(world: World, { swapped, stranger }: FuserMixture, random: Random): Sample {
  const heard = random.pick(world.train);
  if (!random.chance(swapped)) return sample(world, { person: heard, heard, answer: heard }, random);
  const person = random.pick(random.chance(stranger) ? world.strangers : world.train);
  return sample(world, { person, heard, answer: heard }, random);
}

/** The receiver reads about `person`, the sharer the same question about `heard`; the answer is true of `answer`. */
function sample(
  { facts }: World,
  { person, heard, answer }: { readonly person: string; readonly heard: string; readonly answer: string },
  random: Random,
): Sample {
  const attribute = random.pick(attributes);
  const question = ask("@", attribute, random);
  return {
    messages: [
      { role: "user", content: question.replace("@", person) },
      { role: "assistant", content: facts[answer]?.[attribute] ?? "" },
    ],
    sharerMessages: [{ role: "user", content: question.replace("@", heard) }],
  };
}
