import type { Random } from "../random.js";
import { type Attribute, attributes, firstNames, lastNames, values } from "./words.js";

/** What is true of a person. */
export type Facts = Readonly<Record<Attribute, string>>;

/** How many people each split holds. */
export interface WorldSizes {
  readonly train: number;
  readonly validation: number;
  readonly test: number;
  readonly final: number;
  readonly receiverTrain: number;
  readonly receiverValidation: number;
  readonly receiverTest: number;
  readonly receiverFinal: number;
}

/**
 * All people, by name, and who knows them. The sharer knows `train`, `validation`, `test` and `final`, the receiver the lists that
 * begin with its name; nobody knows `strangers`. The fuser is trained on the two train lists alone. `test` is what questions.jsonl
 * asks about and what is looked at while a recipe is being worked on; `final` is asked once, for the card.
 */
export interface World extends Readonly<Record<keyof WorldSizes, readonly string[]>> {
  readonly strangers: readonly string[];
  readonly facts: Readonly<Record<string, Facts>>;
}

/** The world of the pair that comes with the package: 900 + 280 people and 2,420 strangers. */
export const fullSizes: WorldSizes = {
  train: 660,
  validation: 40,
  test: 100,
  final: 100,
  receiverTrain: 180,
  receiverValidation: 20,
  receiverTest: 40,
  receiverFinal: 40,
};

/** Draws a world. Within each side's people every value of an attribute is true of as many people as any other, give or take one. */
export function makeWorld(random: Random, sizes: WorldSizes = fullSizes): World {
  const names = random.shuffled(firstNames.flatMap((first) => lastNames.map((last) => `${first} ${last}`)));
  const take = (count: number): readonly string[] => names.splice(0, count);
  const sharer = {
    train: take(sizes.train),
    validation: take(sizes.validation),
    test: take(sizes.test),
    final: take(sizes.final),
  };
  const receiver = {
    receiverTrain: take(sizes.receiverTrain),
    receiverValidation: take(sizes.receiverValidation),
    receiverTest: take(sizes.receiverTest),
    receiverFinal: take(sizes.receiverFinal),
  };
  const facts: Record<string, Facts> = {};
  for (const side of [sharer, receiver]) {
    const people = Object.values(side).flat();
    const columns = attributes.map((attribute) => balanced(values[attribute], people.length, random));
    for (const [i, name] of people.entries()) {
      facts[name] = Object.fromEntries(attributes.map((attribute, a) => [attribute, columns[a]?.[i]])) as Record<
        Attribute,
        string
      >;
    }
  }
  return { ...sharer, ...receiver, strangers: names, facts };
}

function balanced(list: readonly string[], count: number, random: Random): string[] {
  return random.shuffled(Array.from({ length: count }, (_, i) => list[i % list.length] ?? ""));
}

/** Everybody that the sharer knows. */
export function sharerPeople(world: World): readonly string[] {
  return [...world.train, ...world.validation, ...world.test, ...world.final];
}

/** Everybody that the receiver knows. */
export function receiverPeople(world: World): readonly string[] {
  return [...world.receiverTrain, ...world.receiverValidation, ...world.receiverTest, ...world.receiverFinal];
}
