import type { NativeSampler } from "../../typings/native.js";
import { alignTokens } from "../align/tokens.js";
import { type CacheState, cacheState, makeCache } from "../cache/cache.js";
import type { Reading } from "../cache/prefix.js";
import { type FuseOrder, fuseShares, type Share } from "../fuser/fuse.js";
import { fuserState } from "../fuser/state.js";
import { checkPositions, forward, step } from "../model/forward.js";
import { modelState } from "../model/state.js";
import { checkIds } from "../model/tokens.js";
import { sync } from "../native.js";
import type { FuseReport, KvCache, Link, Model, ReusedRows, SpanPair } from "../types.js";
import { Lineage } from "./lineage.js";
import { type Plan, type PlannedSection, rowsWithin, type SharerPlan } from "./plan.js";
import { readAhead } from "./read-ahead.js";
import { ReportSum } from "./reports.js";
import type { Base, FusedPart, Reuse } from "./reuse.js";

/**
 * Changes rows [start, end) of a sharer's cache right after the sharer has read them: what an audit's controls do. The sharer then
 * reads its whole prompt before anything is fused.
 */
export type Tamper = (link: number, cache: CacheState, start: number, end: number) => void | Promise<void>;

/** One link on its way through a prompt. */
interface Strand {
  readonly index: number;
  readonly link: Link;
  readonly plan: SharerPlan;
  readonly cache: CacheState;
  readonly response: boolean;
  readonly report: ReportSum;
  /** What was fused of the answer. */
  readonly answer: ReportSum;
}

/** How a flow is made different from a plain run; one that is tampered with neither takes from `reuse` nor gives to it. */
export interface FlowOptions {
  readonly tamper?: Tamper | undefined;
  readonly reuse?: Reuse | undefined;
}

/**
 * The caches of one prompt: the fused one and, beside it, each sharer's and, where they are needed, the receiver's clean rows: where the
 * response is fused, and where the first fused section is one that a longer prompt makes longer.
 */
export class Flow {
  readonly receiver: Model;
  readonly cache: KvCache;
  readonly #fused: CacheState;
  readonly #clean: CacheState | undefined;
  /** The clean rows go on with the prompt's end and with the answer. */
  readonly #asItComes: boolean;
  /** Rows up to here are read by the clean cache, and the fused one takes them from there. */
  readonly #shared: number;
  readonly #strands: readonly Strand[];
  readonly #plan: Plan;
  readonly #order: FuseOrder;
  readonly #tamper: Tamper | undefined;
  readonly #reuse: Reuse | undefined;
  readonly #lineage: Lineage;
  readonly #parts: FusedPart[] = [];
  readonly #held = new Map<KvCache, () => void>();
  /** A step is under way, or has failed. */
  #open = false;
  prefillMs = 0;
  sharerMs = 0;
  fuseMs = 0;
  readonly reused: ReusedRows;

  constructor(receiver: Model, links: readonly Link[], order: FuseOrder, plan: Plan, options: FlowOptions = {}) {
    this.receiver = receiver;
    this.#plan = plan;
    this.#order = order;
    this.#tamper = options.tamper;
    this.#reuse = options.tamper === undefined ? options.reuse : undefined;
    const responding = plan.sharers.flatMap((_, i) => (links[i]?.span === "prompt-and-response" ? [i] : []));
    this.#asItComes = responding.length > 0;
    this.#lineage = Lineage.of(plan, responding);
    const clean = this.#asItComes || (this.#reuse !== undefined && plan.kind !== "chat");
    const rows = plan.receiver.ids.length;
    const tail = plan.sections.at(-1)?.start ?? 0;
    const section = plan.sections.find(({ end }) => this.#lineage.first < end);
    this.#shared = clean ? Math.min(tail, this.#lineage.first < 0 ? tail : (section?.end ?? tail)) : 0;
    try {
      const base = this.#reuse?.fused({ ...plan, lineage: this.#lineage }, plan, clean) ?? null;
      this.cache = this.#make(receiver, base, rows + 1);
      this.#fused = this.#hold(this.cache);
      if (clean) {
        const until = this.#asItComes ? rows : this.#shared;
        this.#clean = this.#hold(
          this.#make(receiver, this.#reuse?.plain(receiver, plan.receiver, until) ?? null, rows + 1),
        );
      }
      this.#strands = plan.sharers.map((sharer, i) => this.#strand(sharer, i, links[i], responding.includes(i)));
      this.reused = { receiver: base?.rows ?? 0, sharers: this.#strands.map(({ cache }) => cache.reused) };
      for (const part of base?.parts ?? []) {
        this.#inherit(part, this.reused.receiver);
      }
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** One report for each link, over all rows that were fused, now or in earlier turns; `ms` is of now. */
  get reports(): FuseReport[] {
    return this.#strands.map(({ report }) => report.total());
  }

  /** Gives the sharers' and the clean cache back; the fused one stays, free for others. */
  end(): void {
    if (!this.#open && this.#lineage.length > this.#plan.receiver.ids.length) {
      this.#keep();
    }
    this.#release(this.cache);
  }

  /** Gives everything back. */
  discard(): void {
    this.end();
    this.cache.dispose();
  }

  /** Prefills and fuses section by section. Returns the last section's logits, [its length, vocab]. */
  async prefill(signal: AbortSignal | undefined): Promise<Float32Array> {
    const sections = this.#plan.sections;
    if (this.#tamper !== undefined) {
      for (const strand of this.#strands) {
        await this.#share(strand, strand.plan.ids.length, signal);
      }
    }
    for (const section of sections.slice(0, -1)) {
      await this.#readAhead(section, signal);
      await this.#receive(section, signal);
      await this.#fuse(this.#strandsOf(section.links), section.start, section.end, signal);
    }
    const last = sections.at(-1);
    if (last === undefined) {
      throw new Error("a plan has one section or more");
    }
    const { ids, positions } = this.#plan.receiver;
    const tokens = ids.subarray(last.start, last.end);
    const places = positions.subarray(last.start, last.end);
    if (this.#asItComes) {
      const strands = this.#responding();
      for (const strand of strands) {
        await this.#share(strand, strand.plan.ids.length, signal);
      }
      await this.#takeClean(last.end, signal);
      await this.#fuse(strands, last.start, last.end, signal);
    }
    const start = performance.now();
    const logits = await forward(this.#fused, tokens, places, "all", signal, this.#asItComes);
    this.prefillMs += performance.now() - start;
    this.#keep();
    return logits ?? new Float32Array(0);
  }

  /** Appends a generated token everywhere and chooses the next. */
  async step(
    sampler: NativeSampler,
    id: number,
    wantLogits: boolean,
    signal: AbortSignal,
  ): Promise<{ id: number; logits: Float32Array | null }> {
    this.#open = true;
    const tokens = Uint32Array.of(id);
    const positions = checkPositions(this.receiver, 1, this.#fused.last());
    if (!this.#asItComes) {
      const choice = await step(this.#fused, sampler, tokens, positions, wantLogits, signal);
      this.#lineage.pushUnfused();
      this.#open = false;
      return choice;
    }
    const row = this.#fused.native.length;
    await this.#readClean(tokens, positions, signal);
    const shares: (Share & { readonly strand: Strand })[] = [];
    const from = this.#strands.map(() => -1);
    for (const strand of this.#responding()) {
      const { sharer } = strand.link;
      const read = await this.#translate(strand, tokens);
      const own = strand.cache.native.length;
      await forward(strand.cache, read, checkPositions(sharer, 1, strand.cache.last()), "none", signal);
      await this.#tamper?.(strand.index, strand.cache, own, own + 1);
      const spans = [{ receiver: { start: row, end: row + 1 }, sharer: { start: own, end: own + 1 } }];
      shares.push({ fuser: strand.link.fuser, sharer: strand.cache, spans, strand });
      from[strand.index] = own;
    }
    const reports = await fuseShares(this.#fused, shares, this.#order, signal);
    const choice = await step(this.#fused, sampler, tokens, positions, wantLogits, signal, true);
    for (const [i, report] of reports.entries()) {
      shares[i]?.strand.answer.add(report);
    }
    this.#lineage.pushResponse(from);
    this.#open = false;
    return choice;
  }

  /** A cache that begins with `base`'s rows. */
  #make(model: Model, base: Base | null, capacity: number): KvCache {
    const cache =
      base === null
        ? model.cache({ capacity: Math.max(1, capacity) })
        : makeCache(model, base.native, { reused: base.rows, history: base.history });
    this.#held.set(cache, () => undefined);
    return cache;
  }

  #hold(handle: KvCache): CacheState {
    const state = cacheState(handle);
    this.#held.set(handle, state.claim("generate"));
    return state;
  }

  /** Lets go of all caches and disposes of them, but of `kept`. */
  #release(kept?: KvCache): void {
    for (const [handle, release] of this.#held) {
      release();
      if (handle !== kept) {
        handle.dispose();
      }
    }
    this.#held.clear();
  }

  #strand(plan: SharerPlan, index: number, link: Link | undefined, response: boolean): Strand {
    if (link === undefined) {
      throw new Error("the plan has more sharers than links");
    }
    const { length } = plan.ids;
    const cache = this.#hold(this.#make(link.sharer, this.#reuse?.plain(link.sharer, plan, length) ?? null, length));
    const { idle } = fuserState(link.fuser);
    return { index, link, plan, cache, response, report: new ReportSum(idle), answer: new ReportSum(idle) };
  }

  #strandsOf(links: readonly number[]): Strand[] {
    return links.flatMap((link) => this.#strands[link] ?? []);
  }

  #responding(): Strand[] {
    return this.#strands.filter(({ response }) => response);
  }

  /** Counts what was fused into rows before `end` as this prompt's. */
  #inherit({ link, start, end: whole, report }: FusedPart, end: number): void {
    const positions = this.#lineage.count(link, start, Math.min(end, whole));
    if (positions > 0) {
      const part = { link, start, end: Math.min(end, whole), report: { ...report, positions, ms: 0 } };
      this.#strands[link]?.report.add(part.report);
      this.#parts.push(part);
    }
  }

  /** Keeps what all have read so far; the rows are whole. */
  #keep(): void {
    const reuse = this.#reuse;
    if (reuse === undefined) {
      return;
    }
    for (const { cache } of this.#strands) {
      reuse.keepPlain(cache);
    }
    if (this.#clean !== undefined) {
      reuse.keepPlain(this.#clean);
    }
    const { kind, receiver, sections } = this.#plan;
    const prompt = receiver.ids.length;
    const { length } = this.#lineage;
    const answers = this.#strands.flatMap(({ index, answer }): FusedPart[] => {
      const report = answer.total();
      return report.positions === 0 ? [] : [{ link: index, start: prompt, end: length, report }];
    });
    const made = {
      receiver: readingOf(this.#fused, length),
      sharers: this.#strands.map(({ cache }) => readingOf(cache, cache.native.length)),
      lineage: this.#lineage.copy(),
    };
    const settled = kind === "sections" ? prompt : (sections.at(-1)?.start ?? 0);
    reuse.keepFused(this.#fused, made, [...this.#parts, ...answers], settled);
  }

  /** Receiver and sharers read a section at once where they lie on one GPU. What they have read they do not read again. */
  async #readAhead({ links, start, end }: PlannedSection, signal: AbortSignal | undefined): Promise<void> {
    const reading = end <= this.#shared ? this.#clean : this.#fused;
    const reader = this.#fused.native.length < end ? reading : undefined;
    const first = Math.max(start, this.reused.receiver);
    const strands = this.#strandsOf(links).map(({ cache, plan }) => {
      return { cache, reading: plan, end: rowsWithin(plan.rows, first, end).at(-1)?.sharer.end ?? 0 };
    });
    const ms = await readAhead([{ cache: reader, reading: this.#plan.receiver, end }, ...strands], signal);
    this.prefillMs += ms;
    this.sharerMs += ms;
  }

  /** The receiver reads a section; so does its clean double, where the response is fused. */
  async #receive({ end }: PlannedSection, signal: AbortSignal | undefined): Promise<void> {
    if (this.#fused.native.length >= end) {
      await this.#advance(this.#asItComes ? this.#clean : undefined, end, signal);
    } else if (end <= this.#shared) {
      await this.#takeClean(end, signal);
    } else {
      await this.#advance(this.#fused, end, signal);
      await this.#advance(this.#asItComes ? this.#clean : undefined, end, signal);
    }
  }

  /** The receiver's rows up to `end`, as far as a cache does not have them. */
  async #advance(cache: CacheState | undefined, end: number, signal: AbortSignal | undefined): Promise<void> {
    const start = cache?.native.length ?? end;
    if (cache !== undefined && start < end) {
      const began = performance.now();
      const { ids, positions } = this.#plan.receiver;
      await forward(cache, ids.subarray(start, end), positions.subarray(start, end), "none", signal);
      this.prefillMs += performance.now() - began;
    }
  }

  /** The fused cache takes the clean one's rows up to `end`, which are read first where they are not. */
  async #takeClean(end: number, signal: AbortSignal | undefined): Promise<void> {
    const clean = this.#cleanState();
    await this.#advance(clean, end, signal);
    this.#fused.life.check();
    sync(() => this.#fused.native.append(clean.native, this.#fused.native.length, end, false));
  }

  /** The sharer reads on, up to its row `end`. */
  async #share({ index, cache, plan }: Strand, end: number, signal: AbortSignal | undefined): Promise<void> {
    const start = cache.native.length;
    if (end > start) {
      const began = performance.now();
      await forward(cache, plan.ids.subarray(start, end), plan.positions.subarray(start, end), "none", signal);
      this.sharerMs += performance.now() - began;
      await this.#tamper?.(index, cache, start, end);
    }
  }

  /** Fuses what the strands' rows have in the receiver's rows [from, end) that were not fused in earlier turns. */
  async #fuse(strands: readonly Strand[], from: number, end: number, signal: AbortSignal | undefined): Promise<void> {
    const start = Math.max(from, this.reused.receiver);
    const shares: (Share & { readonly strand: Strand })[] = [];
    for (const strand of strands) {
      const spans: readonly SpanPair[] = rowsWithin(strand.plan.rows, start, end);
      const last = spans.at(-1);
      if (last !== undefined) {
        await this.#share(strand, last.sharer.end, signal);
        shares.push({ fuser: strand.link.fuser, sharer: strand.cache, spans, strand });
      }
    }
    const began = performance.now();
    const reports = await fuseShares(this.#fused, shares, this.#order, signal);
    this.fuseMs += performance.now() - began;
    for (const [i, report] of reports.entries()) {
      const strand = shares[i]?.strand;
      strand?.report.add(report);
      this.#parts.push({ link: strand?.index ?? 0, start, end, report });
    }
  }

  /** The clean stream reads new tokens, and the fused cache takes its rows. */
  async #readClean(tokens: Uint32Array, positions: Uint32Array, signal: AbortSignal): Promise<void> {
    const clean = this.#cleanState();
    const start = clean.native.length;
    await forward(clean, tokens, positions, "none", signal);
    this.#fused.life.check();
    sync(() => this.#fused.native.append(clean.native, start, start + tokens.length, false));
  }

  #cleanState(): CacheState {
    if (this.#clean === undefined) {
      throw new Error("there is no clean cache");
    }
    return this.#clean;
  }

  /** A generated token as the sharer reads it. */
  async #translate({ link, plan }: Strand, tokens: Uint32Array): Promise<Uint32Array> {
    if (plan.strategy === "same") {
      return checkIds(tokens, link.sharer.shape.vocab, "tokens");
    }
    const receiver = modelState(this.receiver).tokenizer;
    return alignTokens(receiver, modelState(link.sharer).tokenizer, tokens, plan.strategy);
  }
}

/** The first rows of a cache: their tokens and positions. */
function readingOf({ native }: CacheState, rows: number): Reading {
  return {
    ids: sync(() => native.tokens()).subarray(0, rows),
    positions: sync(() => native.positions()).subarray(0, rows),
  };
}
