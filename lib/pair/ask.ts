import {
  type Channel,
  type Contribution,
  connectByText,
  type Fuser,
  fuse,
  type Generation,
  type KvCache,
  type Model,
  type Tokens,
} from "../index.js";

/** One question about a person. `who`: whose knowledge holds the answer. `ask`: what text-to-text asks the sharer. */
export interface DemoQuestion {
  readonly id: string;
  readonly who: "sharer" | "receiver";
  readonly question: string;
  readonly ask: string;
  readonly answer: string;
}

/** What one system said. `firstTokenMs`: from the question in text to the first new token. */
export interface DemoAnswer {
  readonly text: string;
  readonly correct: boolean;
  readonly firstTokenMs: number;
}

/** Draws from a normal distribution. */
export type Normal = (mean: number, deviation: number) => number;

/** Answers are one word: six new tokens, greedy. */
export const answerOptions = { sampling: { kind: "greedy" }, maxNewTokens: 6 } as const;

/** Collects a generation; `started` is performance.now() from before the prompt was read. */
export async function collect(generation: Generation, question: DemoQuestion, started: number): Promise<DemoAnswer> {
  let firstTokenMs: number | null = null;
  let text = "";
  for await (const event of generation) {
    firstTokenMs ??= performance.now() - started;
    if (event.type === "done") text = event.text;
  }
  const said = text.trim().replace(/\.$/, "");
  return { text: said, correct: said === question.answer, firstTokenMs: firstTokenMs ?? 0 };
}

/** One model by itself. */
export async function askAlone(model: Model, question: DemoQuestion): Promise<DemoAnswer> {
  const started = performance.now();
  const { tokens } = await model.encode(question.question);
  using cache = await model.prefill(slice(model, tokens, 0, tokens.length - 1));
  const last = slice(model, tokens, tokens.length - 1, tokens.length);
  return await collect(model.generate(cache, last, answerOptions), question, started);
}

/** How many rows the sharer reads for a question. */
export async function sharerRows(fuser: Fuser, question: DemoQuestion): Promise<number> {
  const prompt = await fuser.pair.receiver.encode(question.question);
  return (await fuser.align(prompt)).sharer.tokens.length;
}

/**
 * A control: the receiver reads `question` and is fused with a sharer cache that cannot know the answer: the one of another question
 * whose sharer rows are as many, one of zeros, or one of `noise` with the right cache's mean and deviation per layer and part. Gates
 * and weights are applied as ever.
 */
export async function askControl(
  fuser: Fuser,
  question: DemoQuestion,
  control: { readonly question: string } | "zeroed" | Normal,
): Promise<DemoAnswer> {
  const started = performance.now();
  const { receiver, sharer } = fuser.pair;
  const alignment = await fuser.align(await receiver.encode(question.question));
  const other = typeof control === "object" ? control.question : null;
  const read = other === null ? alignment : await fuser.align(await receiver.encode(other));
  using sharerCache = await sharer.prefill(read.sharer.tokens, { positions: read.sharer.positions });
  if (other === null) replace(sharerCache, sharer, typeof control === "function" ? control : () => 0);

  const { tokens, positions } = alignment.receiver;
  using cache = receiver.cache({ capacity: tokens.length + answerOptions.maxNewTokens });
  const readTo = async (end: number): Promise<void> => {
    if (end <= cache.length) return;
    const options = { into: cache, positions: positions.slice(cache.length, end) };
    await receiver.prefill(slice(receiver, tokens, cache.length, end), options);
  };
  for (const span of alignment.fused) {
    await readTo(span.receiver.end);
    const contribution: Contribution = { fuser, sharer: sharerCache, spans: [span] };
    await fuse(cache, [contribution]);
  }
  await readTo(tokens.length - 1);
  const last = slice(receiver, tokens, tokens.length - 1, tokens.length);
  return await collect(receiver.generate(cache, last, answerOptions), question, started);
}

/** Writes drawn values over every key and value. */
function replace(cache: KvCache, { shape }: Model, draw: Normal): void {
  for (let layer = 0; layer < shape.layers; layer++) {
    for (const part of ["key", "value"] as const) {
      const rows = cache.read(layer, part);
      const mean = rows.reduce((sum, value) => sum + value, 0) / rows.length;
      const deviation = Math.sqrt(rows.reduce((sum, value) => sum + (value - mean) ** 2, 0) / rows.length);
      cache.write(
        layer,
        part,
        0,
        rows.map(() => draw(mean, deviation)),
      );
    }
  }
}

function slice(model: Model, tokens: Tokens, start: number, end: number): Tokens {
  return model.tokens(tokens.slice(start, end));
}

/** Several generations run at once: their decode steps share batches. */
const CONCURRENT = 32;
const MESSAGE_TOKENS = 96;

/** The sharer is asked each question's `ask`; the receiver reads what it says and the question in one turn. */
export function textChannel(receiver: Model, sharer: Model, questions: readonly DemoQuestion[]): Channel {
  const asks = new Map(questions.map(({ question, ask }) => [question, ask]));
  return connectByText(receiver, sharer, {
    ask: (messages) =>
      messages.map((message) => ({ ...message, content: asks.get(message.content) ?? message.content })),
    compose: (messages, text) =>
      messages.map((message) => ({ ...message, content: `${text.trim()} ${message.content}` })),
    maxMessageTokens: MESSAGE_TOKENS,
  });
}

/** One question through a channel. */
export function askChannel(channel: Channel, question: DemoQuestion): Promise<DemoAnswer> {
  const started = performance.now();
  return collect(channel.generate(question.question, answerOptions), question, started);
}

/** Asks all questions, some at a time, in order. */
export async function askAll<Q extends DemoQuestion>(
  questions: readonly Q[],
  ask: (question: Q) => Promise<DemoAnswer>,
  onDone: (done: number) => void,
): Promise<readonly DemoAnswer[]> {
  const answers: DemoAnswer[] = [];
  for (let at = 0; at < questions.length; at += CONCURRENT) {
    answers.push(...(await Promise.all(questions.slice(at, at + CONCURRENT).map(ask))));
    onDone(answers.length / questions.length);
  }
  return answers;
}

/** For each question the next one, cyclic, whose answer differs and whose sharer rows are as many. */
export async function mismatches(
  fuser: Fuser,
  questions: readonly DemoQuestion[],
): Promise<ReadonlyMap<string, DemoQuestion>> {
  const rows: number[] = [];
  for (const question of questions) rows.push(await sharerRows(fuser, question));
  const found = new Map<string, DemoQuestion>();
  for (const [i, question] of questions.entries()) {
    for (let step = 1; step < questions.length; step++) {
      const at = (i + step) % questions.length;
      const other = questions[at];
      if (!other || other.answer === question.answer || rows[at] !== rows[i]) continue;
      found.set(question.id, other);
      break;
    }
  }
  return found;
}
