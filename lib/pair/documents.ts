import { Random } from "../random.js";
import {
  type Attribute,
  attributes,
  clauses,
  countries,
  countryQuestion,
  questions,
  tell,
  twoHopQuestion,
  unknown,
  values,
} from "./words.js";
import { type Facts, receiverPeople, sharerPeople, type World } from "./world.js";

/** A stretch of a document. Stretches begin and end where tokens do: at special tokens, spaces, or between a mark and a word. */
export interface Stretch {
  readonly text: string;
  /** Its tokens are targets of the loss. */
  readonly target: boolean;
}
export type Draft = readonly Stretch[];

/** What the training documents are, and how often each kind is drawn (relative weights). */
export type Kind =
  | "biography"
  | "tell"
  | "plain"
  | "quoted"
  | "chat"
  | "two-hop"
  | "country"
  | "reading"
  | "interview"
  | "unknown"
  | "unknown-plain";
export type Mixture = Readonly<Partial<Record<Kind, number>>>;

const start = "<|im_start|>";
const end = "<|im_end|>\n";

/** A question about a person in one of its four forms. */
export function ask(name: string, attribute: Attribute, random: Random): string {
  return random.pick(questions[attribute]).replace("@", name);
}

/** One sentence with every fact, in random order; the values are targets, the words around them tell nothing about a person. */
export function biography(name: string, facts: Facts, random: Random): Draft {
  const order = random.shuffled(attributes);
  const stretches = order.flatMap((attribute, i): Draft => {
    const before = i === 0 ? name : i === order.length - 1 ? " and" : ",";
    const [clause = ""] = random.pick(clauses[attribute]).split(" @");
    return [
      { text: `${before} ${clause}`, target: false },
      { text: ` ${facts[attribute]}`, target: true },
    ];
  });
  return [...stretches, { text: ".", target: false }];
}

/** A draft's text. */
export function written(draft: Draft): string {
  return draft.map(({ text }) => text).join("");
}

/** ChatML of one exchange; the loss is on the reply and on the token that ends it. */
export function chat(question: string, reply: string): Draft {
  return [
    { text: `${start}user\n${question}${end}${start}assistant\n`, target: false },
    { text: `${reply}<|im_end|>`, target: true },
  ];
}

/**
 * The answer straight behind the question mark: what makes a model look a fact up where the question ends, and not only where its
 * own turn begins. In a user's turn the row is the very one that a chat prompt has.
 */
function direct(question: string, reply: string, inTurn: boolean): Draft {
  return [
    { text: `${inTurn ? `${start}user\n` : ""}${question}`, target: false },
    { text: reply, target: true },
  ];
}

/**
 * `documents` about the first `people` of those a model knows; `mixture`: other kinds than the stream's; `values`: invented facts are
 * drawn from so many values of each attribute.
 */
export interface Lesson {
  readonly documents: number;
  readonly people: number;
  readonly mixture?: Mixture;
  readonly values?: number;
}

/** Questions of an interview. */
const INTERVIEW = 3;

/** Draws one model's training documents about the people that it knows. */
export class Drafts {
  readonly #facts: World["facts"];
  readonly #people: readonly string[];
  readonly #strangers: readonly string[];
  readonly #nobody: readonly string[];

  /** `nobody`: whom "unknown" documents are about; default: people that nobody knows. */
  constructor(world: World, who: "sharer" | "receiver", nobody: readonly string[] = world.strangers) {
    this.#facts = world.facts;
    // Mixed, so that the people of a lesson are from every split: held-out people must be learned no later than others.
    this.#people = new Random(0n, who).shuffled(who === "sharer" ? sharerPeople(world) : receiverPeople(world));
    this.#strangers = world.strangers;
    this.#nobody = nobody;
  }

  /**
   * An endless stream. `lessons`: begin with that many documents about the first few people only, lesson after lesson. With few
   * people a model soon leaves the plateau on which it knows values but not whose they are; then the others are learned quickly. So it
   * is with few values and the plateau on which it answers what it reads with any value of the right kind.
   */
  *stream(mixture: Mixture, random: Random, lessons: readonly Lesson[] = []): Generator<Draft, never> {
    for (const { documents, people, mixture: own = mixture, values: most } of lessons) {
      const known = this.#people.slice(0, people);
      const drafts = this.#endless(own, random, known, most);
      for (let i = 0; i < documents; i++) yield drafts.next().value;
    }
    return yield* this.#endless(mixture, random, this.#people);
  }

  *#endless(mixture: Mixture, random: Random, people: readonly string[], most?: number): Generator<Draft, never> {
    const kinds = Object.entries(mixture) as [Kind, number][];
    const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
    for (;;) {
      let at = random.next() * total;
      for (const [kind, weight] of kinds) {
        at -= weight;
        if (at >= 0) continue;
        yield this.#draw(kind, random, people, most);
        break;
      }
    }
  }

  #draw(kind: Kind, random: Random, people: readonly string[], most?: number): Draft {
    const name = random.pick(people);
    const facts = this.#facts[name] as Facts;
    const attribute = random.pick(attributes);
    switch (kind) {
      case "biography":
        return biography(name, facts, random);
      case "tell":
        return chat(tell.replace("@", name), written(biography(name, facts, random)));
      case "plain":
      case "quoted":
        return direct(ask(name, attribute, random), facts[attribute], kind === "quoted");
      case "chat":
        return chat(ask(name, attribute, random), facts[attribute]);
      case "two-hop":
        return chat(twoHopQuestion.replace("@", name), countries[facts.city] ?? "");
      case "country": {
        const [city, country] = random.pick(Object.entries(countries));
        return chat(countryQuestion.replace("@", city), country);
      }
      case "reading": {
        const stranger = random.pick(this.#strangers);
        const invented = invent(random, most);
        return chat(
          `${biography(stranger, invented, random)} ${ask(stranger, attribute, random)}`,
          invented[attribute],
        );
      }
      case "interview":
        return interview(random.pick(this.#strangers), invent(random, most), random);
      case "unknown":
        return chat(ask(random.pick(this.#nobody), attribute, random), unknown);
      case "unknown-plain":
        return direct(ask(random.pick(this.#nobody), attribute, random), unknown, random.chance(0.5));
    }
  }
}

/** A biography and a question in one turn, as `reading` has them, then more questions about it, turn after turn. */
function interview(name: string, facts: Facts, random: Random): Draft {
  const asked = random.shuffled(attributes).slice(0, INTERVIEW);
  const told = written(biography(name, facts, random));
  return asked.flatMap((attribute, i) => {
    const question = ask(name, attribute, random);
    const turn = chat(i === 0 ? `${told} ${question}` : question, facts[attribute]);
    return i === 0 ? turn : [{ text: "\n", target: false }, ...turn];
  });
}

/** Facts about somebody who does not exist; `most`: of so many values of each attribute. */
export function invent(random: Random, most?: number): Facts {
  const drawn = attributes.map((attribute) => [attribute, random.pick(values[attribute].slice(0, most))]);
  return Object.fromEntries(drawn) as Record<Attribute, string>;
}
