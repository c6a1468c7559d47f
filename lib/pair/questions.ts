import type { Who } from "../demo/pair.js";
import type { Random } from "../random.js";
import { type Attribute, attributes, questions, tell } from "./words.js";
import type { World } from "./world.js";

/** A line of questions.jsonl. `who`: whose knowledge holds the answer. `ask`: what text-to-text asks the sharer. */
export interface PairQuestion {
  readonly id: string;
  readonly who: Who;
  readonly question: string;
  readonly ask: string;
  readonly answer: string;
  readonly person: string;
  readonly attribute: Attribute;
}

/**
 * `count` questions about these people, in random order: every person and attribute once, then again in another form, as long as
 * questions are left to draw. `first` is the number that the first one's id gets.
 */
export function makeQuestions(
  world: World,
  who: PairQuestion["who"],
  people: readonly string[],
  count: number,
  random: Random,
  first = 0,
): readonly PairQuestion[] {
  const facts = people.flatMap((person) => attributes.map((attribute) => ({ person, attribute })));
  const forms = facts.map(({ attribute }) => random.shuffled(questions[attribute]));
  const rounds = Math.max(...Object.values(questions).map(({ length }) => length));
  const drawn = Array.from({ length: rounds }, (_, round) =>
    random.shuffled(facts.map((fact, i) => ({ ...fact, form: forms[i]?.[round] ?? "" }))),
  );
  return random.shuffled(drawn.flat().slice(0, count)).map(({ person, attribute, form }, i) => ({
    id: `q${String(first + i).padStart(4, "0")}`,
    who,
    person,
    attribute,
    question: form.replace("@", person),
    ask: tell.replace("@", person),
    answer: world.facts[person]?.[attribute] ?? "",
  }));
}
