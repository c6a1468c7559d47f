import type { Tokenizer } from "../tokens/tokenizer.js";
import type { Message } from "../types.js";
import { type Row, rowInvalid } from "./rows.js";
import { type DataFormat, toSample } from "./samples.js";

/** Token ids of one training document; `targets[i]` is 1 where token i is a target of the loss. */
export interface TokenDocument {
  readonly tokens: Uint32Array;
  readonly targets: Uint8Array;
}

/** What the loss is on: every token but the first, or a conversation's last reply with the tokens that end it. */
export type LossOn = "all" | "answers";

/** Documents encoded in one go. */
const CHUNK = 256;

/**
 * Turns rows into token documents: the text of a field `text`, or a conversation in one of the layouts of `readSamples`, rendered by
 * the tokenizer's chat template. With `loss: "answers"` rows of plain text are refused. Longer documents than `maxTokens` are cut at
 * their end. FILE_INVALID names the row; OPTION_INVALID where the template refuses the messages.
 */
export async function* readDocuments(
  rows: Iterable<Row> | AsyncIterable<Row>,
  tokenizer: Tokenizer,
  options: { readonly file: string; readonly loss: LossOn; readonly format?: DataFormat; readonly maxTokens: number },
): AsyncGenerator<TokenDocument, void> {
  let waiting: (readonly [prefix: string, rest: string])[] = [];
  async function* flush(): AsyncGenerator<TokenDocument, void> {
    const encoded = await tokenizer.encodeAll(waiting.flat());
    for (const i of waiting.keys()) {
      const prefix = encoded[2 * i] ?? new Uint32Array();
      const rest = encoded[2 * i + 1] ?? new Uint32Array();
      const document = join(prefix, rest, options.maxTokens);
      if (document.targets.includes(1)) yield document;
    }
    waiting = [];
  }
  for await (const text of texts(rows, tokenizer, options)) {
    waiting.push(text);
    if (waiting.length === CHUNK) yield* flush();
  }
  yield* flush();
}

/** The texts of all rows, message by message: what a tokenizer is trained on. FILE_INVALID names the row. */
export async function* readTexts(
  rows: Iterable<Row> | AsyncIterable<Row>,
  { file, format }: { readonly file: string; readonly format?: DataFormat },
): AsyncGenerator<string, void> {
  let index = 0;
  for await (const row of rows) {
    if (isText(row, format)) yield row.text;
    else for (const { content } of toSample(row, { file, index, format })?.messages ?? []) yield content;
    index += 1;
  }
}

/** What is read, and what of it is learned. */
async function* texts(
  rows: Iterable<Row> | AsyncIterable<Row>,
  tokenizer: Tokenizer,
  { file, loss, format }: { readonly file: string; readonly loss: LossOn; readonly format?: DataFormat },
): AsyncGenerator<readonly [string, string], void> {
  let index = 0;
  for await (const row of rows) {
    if (isText(row, format)) {
      if (loss === "answers") throw rowInvalid(file, `row ${index} is plain text: it holds no answer to learn`);
      yield ["", row.text];
    } else {
      const sample = toSample(row, { file, index, format });
      if (sample) yield divide(sample.messages, tokenizer, loss, file, index);
    }
    index += 1;
  }
}

function isText(row: Row, format: DataFormat | undefined): row is Row & { readonly text: string } {
  return format === undefined && typeof row["text"] === "string";
}

function divide(
  messages: readonly Message[],
  tokenizer: Tokenizer,
  loss: LossOn,
  file: string,
  index: number,
): readonly [string, string] {
  const whole = tokenizer.render(messages, { generationPrompt: false });
  if (loss === "all") return ["", whole];
  const prefix = tokenizer.render(messages.slice(0, -1), { generationPrompt: true });
  if (!whole.startsWith(prefix)) {
    throw rowInvalid(
      file,
      `row ${index}: the chat template writes the prompt otherwise once it is answered; use loss on all`,
    );
  }
  return [prefix, whole.slice(prefix.length)];
}

function join(prefix: Uint32Array, rest: Uint32Array, most: number): TokenDocument {
  const length = Math.min(prefix.length + rest.length, most);
  const tokens = new Uint32Array(length);
  tokens.set(prefix.subarray(0, length));
  tokens.set(rest.subarray(0, Math.max(0, length - prefix.length)), Math.min(prefix.length, length));
  const targets = new Uint8Array(length).fill(1, Math.min(prefix.length, length));
  targets[0] = 0;
  return { tokens, targets };
}
