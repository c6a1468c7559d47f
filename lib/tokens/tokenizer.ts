import type { Message } from "../types.js";
import { dropRemote, encodeRemote, loadRemote, type RemoteTokenizer } from "./client.js";
import { bytePlaces, findContents, type MessageSpan, tokenSpans } from "./spans.js";
import { TokenStream } from "./stream.js";
import { NameTable } from "./tables.js";
import { ChatTemplate, findTemplate, type RenderOptions, type TemplateSource } from "./template.js";
import type { VocabularyTable } from "./vocabulary.js";

/** The ids of the tokens with a name of their own; null where the model has none. */
export interface SpecialIds {
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad: number | null;
  readonly unk: number | null;
}

/** A tokenised conversation. `spans` are token ranges, by message; the rest is template. */
export interface TokenizedPrompt {
  readonly text: string;
  readonly ids: Uint32Array;
  readonly spans: readonly MessageSpan[];
}

const specialNames = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/** Renderings of marks that are kept. */
const MARKED = 64;
const dropped = new FinalizationRegistry(dropRemote);

function content(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null && "content" in value && typeof value.content === "string")
    return value.content;
  return null;
}

/** A model's tokenizer and chat template. Loading and encoding run in a shared thread; everything else is at hand at once. */
export class Tokenizer {
  /** Fingerprint of the vocabulary: equal when every id means the same token. */
  readonly vocabulary: string;
  /** Highest id plus one. */
  readonly size: number;
  readonly specials: SpecialIds;
  /** Ids that the configuration names as special: bos, eos, unk, sep, pad, cls, mask and the additional ones. */
  readonly named: ReadonlySet<number>;
  readonly #remote: RemoteTokenizer;
  readonly #table: VocabularyTable;
  readonly #template: ChatTemplate;
  readonly #marked = new Map<string, string>();
  readonly #names: NameTable;
  #added: Map<string, number> | null = null;

  private constructor(
    remote: RemoteTokenizer,
    table: VocabularyTable,
    config: Readonly<Record<string, unknown>>,
    template: TemplateSource | null,
  ) {
    this.#remote = remote;
    this.#table = table;
    this.#names = new NameTable(table.names);
    this.vocabulary = table.fingerprint;
    this.size = table.size;
    const names: Record<string, string> = {};
    for (const name of specialNames) {
      const token = content(config[name]);
      if (token !== null) names[name] = token;
    }
    const id = (name: string) => this.idOf(names[name] ?? "") ?? null;
    this.specials = { bos: id("bos_token"), eos: id("eos_token"), pad: id("pad_token"), unk: id("unk_token") };
    const extra = [config["additional_special_tokens"], config["extra_special_tokens"]].flatMap((list) =>
      typeof list === "object" && list !== null ? Object.values(list) : [],
    );
    const named = [...Object.values(names), ...extra.map(content)].map((token) => this.idOf(token ?? ""));
    this.named = new Set(named.filter((value) => value !== undefined));
    this.#template = new ChatTemplate(template, names);
    dropped.register(this, remote);
  }

  /** Reads tokenizer.json, tokenizer_config.json and the chat template of a model folder. FILE_INVALID, IO_FAILED, UNSUPPORTED. */
  static async load(folder: string, signal?: AbortSignal): Promise<Tokenizer> {
    const { remote, table, config } = await loadRemote(folder, signal);
    try {
      const template = await findTemplate(folder, config);
      signal?.throwIfAborted();
      return new Tokenizer(remote, table, config, template);
    } catch (error) {
      dropRemote(remote);
      throw error;
    }
  }

  /** Token ids; no special tokens are added, special tokens' strings in the text are recognised. */
  async encode(text: string): Promise<Uint32Array> {
    const [ids] = await this.encodeAll([text]);
    return ids ?? new Uint32Array();
  }

  /** Encodes several texts in one go. */
  encodeAll(texts: readonly string[]): Promise<Uint32Array[]> {
    return texts.length === 0 ? Promise.resolve([]) : encodeRemote(this.#remote, texts);
  }

  /** The text that the ids spell, without clean-up; broken characters become U+FFFD. `skipSpecial` defaults to false. */
  decode(ids: Iterable<number>, options: { readonly skipSpecial?: boolean } = {}): string {
    const stream = this.stream(options);
    let text = "";
    for (const id of ids) text += stream.push(id);
    return text + stream.end();
  }

  /** A token's bytes; empty for an id that the vocabulary does not hold. */
  bytes(id: number): Uint8Array {
    const { bytes, offsets } = this.#table;
    return bytes.subarray(offsets[id] ?? 0, offsets[id + 1] ?? offsets[id] ?? 0);
  }

  /** Decodes ids one by one. `skipSpecial` defaults to false. */
  stream(options: { readonly skipSpecial?: boolean } = {}): TokenStream {
    return new TokenStream(this, { skipSpecial: options.skipSpecial ?? false, stripsStart: this.#table.stripsStart });
  }

  /** Is it an added token that is marked special? */
  isSpecial(id: number): boolean {
    return ((this.#table.flags[id] ?? 0) & 1) === 1;
  }

  /** The token's vocabulary string; empty for an id that the vocabulary does not hold. */
  name(id: number): string {
    return this.#names.name(id);
  }

  /** The id of a vocabulary string (of an added token its content). */
  idOf(token: string): number | undefined {
    this.#added ??= this.#addedIds();
    return this.#added.get(token) ?? this.#names.find(token);
  }

  /** An added token's content may be a name of the model's own vocabulary, with another id. */
  #addedIds(): Map<string, number> {
    const ids = new Map<string, number>();
    for (const [id, flags] of this.#table.flags.entries()) if (flags !== 0) ids.set(this.name(id), id);
    return ids;
  }

  /** The conversation as text. OPTION_INVALID when the template refuses the messages, UNSUPPORTED without a template. */
  render(messages: readonly Message[], options: RenderOptions = {}): string {
    return this.#template.render(messages, options);
  }

  /** Renders, encodes, and finds each message's tokens. */
  async prompt(messages: readonly Message[], options: RenderOptions = {}): Promise<TokenizedPrompt> {
    const text = this.render(messages, options);
    const ids = await this.encode(text);
    const found = findContents(text, messages, (other) => this.#renderMarks(other, options));
    const { bytes, ends } = this.spell(ids);
    const places = bytePlaces(
      text,
      bytes,
      found.flatMap(({ start, end }) => [start, end]),
    );
    const spans = found.map(({ message }, i) => ({ message, start: places[2 * i] ?? 0, end: places[2 * i + 1] ?? 0 }));
    return { text, ids, spans: tokenSpans(spans, ends) };
  }

  /** As `render`, for contents that are marks: they are the same for all conversations with the same roles. */
  #renderMarks(messages: readonly Message[], options: RenderOptions): string {
    const key = JSON.stringify([messages, options]);
    const known = this.#marked.get(key);
    if (known !== undefined) return known;
    const text = this.render(messages, options);
    if (this.#marked.size >= MARKED) this.#marked.clear();
    this.#marked.set(key, text);
    return text;
  }

  /** The ids' bytes, one after another; `ends[i]` is where those of the i-th end. */
  spell(ids: Uint32Array): { bytes: Uint8Array; ends: Uint32Array } {
    const ends = new Uint32Array(ids.length);
    let length = 0;
    for (const [i, id] of ids.entries()) {
      length += this.bytes(id).length;
      ends[i] = length;
    }
    const bytes = new Uint8Array(length);
    for (const [i, id] of ids.entries()) {
      const piece = this.bytes(id);
      bytes.set(piece, (ends[i] ?? 0) - piece.length);
    }
    return { bytes, ends };
  }
}
