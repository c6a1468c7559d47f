import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignedTokens } from "./tokens.js";

interface Entry {
  readonly first: number;
  readonly longest: number;
  /** Exactly one sharer id. */
  readonly single: boolean;
}

const known = new WeakMap<Tokenizer, WeakMap<Tokenizer, TokenMap>>();

/** Id by id: which sharer token a receiver token's own text becomes. Grows as tokens are met; one for each pair of tokenizers. */
export class TokenMap {
  readonly #receiver: Tokenizer;
  readonly #sharer: Tokenizer;
  readonly #entries = new Map<number, Entry>();
  readonly #missing: number;

  private constructor(receiver: Tokenizer, sharer: Tokenizer) {
    this.#receiver = receiver;
    this.#sharer = sharer;
    this.#missing = sharer.specials.unk ?? 0;
    const from = receiver.specials;
    const to = sharer.specials;
    const pairs = [
      [from.pad ?? from.eos, to.pad ?? to.eos],
      [from.eos, to.eos],
      [from.bos, to.bos],
      [from.unk, to.unk],
    ] as const;
    for (const [source, target] of pairs) if (source !== null && target !== null) this.#set(source, [target]);
  }

  /** The map of this pair. */
  static of(receiver: Tokenizer, sharer: Tokenizer): TokenMap {
    let maps = known.get(receiver);
    if (!maps) {
      maps = new WeakMap();
      known.set(receiver, maps);
    }
    let map = maps.get(sharer);
    if (!map) {
      map = new TokenMap(receiver, sharer);
      maps.set(sharer, map);
    }
    return map;
  }

  /** Learns all tokens of these runs. */
  async add(runs: readonly Uint32Array[]): Promise<void> {
    const news = new Set<number>();
    for (const ids of runs) for (const id of ids) if (!this.#entries.has(id)) news.add(id);
    const ordinary: number[] = [];
    for (const id of news) {
      if (this.#receiver.named.has(id)) this.#set(id, [this.#sharer.idOf(this.#receiver.name(id)) ?? this.#missing]);
      else ordinary.push(id);
    }
    const encoded = await this.#sharer.encodeAll(ordinary.map((id) => this.#receiver.decode([id])));
    for (const [i, id] of ordinary.entries()) this.#set(id, encoded[i] ?? []);
  }

  /** Reads a run whose tokens were added. */
  read(ids: Uint32Array, strategy: "first" | "longest"): AlignedTokens {
    const result = new Uint32Array(ids.length);
    let oneToOne = 0;
    for (const [i, id] of ids.entries()) {
      const entry = this.#entries.get(id);
      result[i] = entry?.[strategy] ?? this.#missing;
      if (entry?.single) oneToOne++;
    }
    return { ids: result, oneToOne };
  }

  #set(id: number, targets: ArrayLike<number>): void {
    const first = targets[0] ?? this.#missing;
    let longest = first;
    let most = -1;
    for (const target of Array.from(targets)) {
      const characters = [...this.#sharer.decode([target])].length;
      if (characters > most) {
        most = characters;
        longest = target;
      }
    }
    this.#entries.set(id, { first, longest, single: targets.length === 1 });
  }
}
