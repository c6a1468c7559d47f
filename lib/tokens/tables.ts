import { randomInt } from "node:crypto";

/** Indices by hash: a slot holds an index plus one, 0 where it is free; at most two thirds are taken, what is taken leads to the next. */
type Slots = Uint32Array<SharedArrayBuffer>;

function shared(count: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(4 * count));
}

/** The slot of the index for which `same` holds, or the free one where it belongs. */
function place(slots: Slots, hash: number, same: (index: number) => boolean): number {
  const last = slots.length - 1;
  let at = hash & last;
  for (let held = slots[at] ?? 0; held !== 0 && !same(held - 1); held = slots[at] ?? 0) at = (at + 1) & last;
  return at;
}

/** Spreads over all bits what differs in some of them (the finisher of MurmurHash3). */
function mixed(value: number): number {
  const once = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35);
  return (twice ^ (twice >>> 16)) >>> 0;
}

/** `seed` is a table's own: no file can be made of names that fall together. */
function hashOf(text: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return mixed(hash);
}

interface Hashed {
  readonly slots: Slots;
  readonly seed: number;
}

function hashed(count: number): Hashed {
  return { slots: shared(2 ** Math.ceil(Math.log2(1.5 * count + 1))), seed: randomInt(2 ** 32) };
}

/** A `NameTable` on its way between threads, which then use the same memory. */
export interface NameTableParts extends Hashed {
  /** The names' UTF-16 units, one after another; the name of `id` is `units[ends[id - 1]..ends[id])`. */
  readonly units: Uint16Array<SharedArrayBuffer>;
  /** [size] */
  readonly ends: Uint32Array<SharedArrayBuffer>;
}

/** A vocabulary's names by id and ids by name. Takes 2 bytes a character and about 12 a token, where a map of strings takes 150. */
export class NameTable {
  readonly parts: NameTableParts;
  readonly #text: Buffer;

  constructor(parts: NameTableParts) {
    this.parts = parts;
    this.#text = Buffer.from(parts.units.buffer);
  }

  /** `names[id]` may be missing. Of equal names the last is found. */
  static of(names: readonly (string | undefined)[]): NameTable {
    const ends = shared(names.length);
    let length = 0;
    for (let id = 0; id < names.length; id++) {
      length += names[id]?.length ?? 0;
      ends[id] = length;
    }
    const units = new Uint16Array(new SharedArrayBuffer(2 * length));
    Buffer.from(units.buffer).write(names.join(""), "utf16le");
    const table = new NameTable({ units, ends, ...hashed(names.length) });
    for (const [id, name] of names.entries()) if (name) table.parts.slots[table.#place(name)] = id + 1;
    return table;
  }

  /** Highest id plus one. */
  get size(): number {
    return this.parts.ends.length;
  }

  /** Empty for an id that is not there. */
  name(id: number): string {
    const { ends } = this.parts;
    const end = ends[id];
    return end === undefined ? "" : this.#text.toString("utf16le", 2 * (ends[id - 1] ?? 0), 2 * end);
  }

  find(name: string): number | undefined {
    if (name === "") return undefined;
    const held = this.parts.slots[this.#place(name)] ?? 0;
    return held === 0 ? undefined : held - 1;
  }

  #place(name: string): number {
    const { units, ends, slots, seed } = this.parts;
    return place(slots, hashOf(name, seed), (id) => {
      const start = ends[id - 1] ?? 0;
      if ((ends[id] ?? 0) - start !== name.length) return false;
      for (let i = 0; i < name.length; i++) if (units[start + i] !== name.charCodeAt(i)) return false;
      return true;
    });
  }
}

/** A `MergeTable` on its way between threads, which then use the same memory. */
export interface MergeTableParts extends Hashed {
  /** [merges] The merged tokens' ids by rank. */
  readonly left: Uint32Array<SharedArrayBuffer>;
  readonly right: Uint32Array<SharedArrayBuffer>;
}

/** The ranks of pairs of tokens that BPE merges. */
export class MergeTable {
  readonly parts: MergeTableParts;

  constructor(parts: MergeTableParts) {
    this.parts = parts;
  }

  static withRoom(count: number): MergeTable {
    return new MergeTable({ left: shared(count), right: shared(count), ...hashed(count) });
  }

  /** A pair that has a rank gets this one. */
  set(left: number, right: number, rank: number): void {
    this.parts.left[rank] = left;
    this.parts.right[rank] = right;
    this.parts.slots[this.#place(left, right)] = rank + 1;
  }

  rank(left: number, right: number): number | undefined {
    const held = this.parts.slots[this.#place(left, right)] ?? 0;
    return held === 0 ? undefined : held - 1;
  }

  #place(left: number, right: number): number {
    const { parts } = this;
    const same = (rank: number) => parts.left[rank] === left && parts.right[rank] === right;
    return place(parts.slots, mixed(mixed(left ^ parts.seed) + right), same);
  }
}
