import type { NativeSampler } from "../../typings/native.js";
import { alignTokens } from "../align/tokens.js";
import { type CacheState, cacheState } from "../cache/cache.js";
import { type FuseOrder, fuseShares, type Share } from "../fuser/fuse.js";
import { fuserState } from "../fuser/state.js";
import { checkPositions, forward, step } from "../model/forward.js";
import { modelState } from "../model/state.js";
import { checkIds } from "../model/tokens.js";
import { sync } from "../native.js";
import type { FuseReport, KvCache, Link, Model, SpanPair } from "../types.js";
import { type Plan, type PlannedSection, rowsWithin, type SharerPlan } from "./plan.js";
import { ReportSum } from "./reports.js";

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
  readonly handle: KvCache;
  readonly response: boolean;
  readonly report: ReportSum;
}

/** The caches of one prompt: the fused one and, beside it, each sharer's and (where the response is fused) a clean one. */
export class Flow {
  readonly receiver: Model;
  readonly cache: KvCache;
  readonly #fused: CacheState;
  readonly #clean: { readonly handle: KvCache; readonly state: CacheState } | undefined;
  readonly #strands: readonly Strand[];
  readonly #plan: Plan;
  readonly #order: FuseOrder;
  readonly #tamper: Tamper | undefined;
  readonly #releases: (() => void)[] = [];
  prefillMs = 0;
  sharerMs = 0;
  fuseMs = 0;

  constructor(receiver: Model, links: readonly Link[], order: FuseOrder, plan: Plan, tamper?: Tamper) {
    this.receiver = receiver;
    this.#plan = plan;
    this.#order = order;
    this.#tamper = tamper;
    this.cache = receiver.cache({ capacity: plan.receiver.ids.length + 1 });
    this.#fused = this.#hold(this.cache);
    this.#strands = plan.sharers.map((sharer, i) => {
      const link = links[i];
      if (link === undefined) {
        throw new Error("the plan has more sharers than links");
      }
      const handle = link.sharer.cache({ capacity: Math.max(1, sharer.ids.length) });
      const response = link.span === "prompt-and-response";
      const report = new ReportSum(fuserState(link.fuser).idle);
      return { index: i, link, plan: sharer, handle, cache: this.#hold(handle), response, report };
    });
    if (this.#strands.some(({ response }) => response)) {
      const handle = receiver.cache({ capacity: plan.receiver.ids.length + 1 });
      this.#clean = { handle, state: this.#hold(handle) };
    }
  }

  /** One report for each link, over everything fused so far. */
  get reports(): FuseReport[] {
    return this.#strands.map(({ report }) => report.total());
  }

  /** Gives the sharers' and the clean cache back; the fused one stays, free for others. */
  end(): void {
    for (const release of this.#releases) {
      release();
    }
    for (const { handle } of this.#strands) {
      handle.dispose();
    }
    this.#clean?.handle.dispose();
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
    if (this.#clean !== undefined) {
      const strands = this.#responding();
      for (const strand of strands) {
        await this.#share(strand, strand.plan.ids.length, signal);
      }
      await this.#appendClean(tokens, places, signal);
      await this.#fuse(strands, last.start, last.end, signal);
    }
    const given = this.#clean !== undefined;
    const start = performance.now();
    const logits = await forward(this.#fused, tokens, places, "all", signal, given);
    this.prefillMs += performance.now() - start;
    return logits ?? new Float32Array(0);
  }

  /** Appends a generated token everywhere and chooses the next. */
  async step(
    sampler: NativeSampler,
    id: number,
    wantLogits: boolean,
    signal: AbortSignal,
  ): Promise<{ id: number; logits: Float32Array | null }> {
    const tokens = Uint32Array.of(id);
    const positions = checkPositions(this.receiver, 1, this.#fused.last());
    if (this.#clean === undefined) {
      return step(this.#fused, sampler, tokens, positions, wantLogits, signal);
    }
    const row = this.#fused.native.length;
    await this.#appendClean(tokens, positions, signal);
    const shares: Share[] = [];
    for (const strand of this.#responding()) {
      const { sharer } = strand.link;
      const read = await this.#translate(strand, tokens);
      const own = strand.cache.native.length;
      await forward(strand.cache, read, checkPositions(sharer, 1, strand.cache.last()), "none", signal);
      await this.#tamper?.(strand.index, strand.cache, own, own + 1);
      const spans = [{ receiver: { start: row, end: row + 1 }, sharer: { start: own, end: own + 1 } }];
      shares.push({ fuser: strand.link.fuser, sharer: strand.cache, spans });
    }
    await fuseShares(this.#fused, shares, this.#order, signal);
    return step(this.#fused, sampler, tokens, positions, wantLogits, signal, true);
  }

  #hold(handle: KvCache): CacheState {
    const state = cacheState(handle);
    this.#releases.push(state.claim("generate"));
    return state;
  }

  #strandsOf(links: readonly number[]): Strand[] {
    return links.flatMap((link) => this.#strands[link] ?? []);
  }

  #responding(): Strand[] {
    return this.#strands.filter(({ response }) => response);
  }

  /** The receiver reads a section; so does its clean double. */
  async #receive(section: PlannedSection, signal: AbortSignal | undefined): Promise<void> {
    const start = performance.now();
    const { ids, positions } = this.#plan.receiver;
    const tokens = ids.subarray(section.start, section.end);
    const places = positions.subarray(section.start, section.end);
    await forward(this.#fused, tokens, places, "none", signal);
    if (this.#clean !== undefined) {
      await forward(this.#clean.state, tokens, places, "none", signal);
    }
    this.prefillMs += performance.now() - start;
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

  /** Fuses what the strands' rows have in the receiver's rows [start, end). */
  async #fuse(strands: readonly Strand[], start: number, end: number, signal: AbortSignal | undefined): Promise<void> {
    const shares: (Share & { readonly report: ReportSum })[] = [];
    for (const strand of strands) {
      const spans: readonly SpanPair[] = rowsWithin(strand.plan.rows, start, end);
      const last = spans.at(-1);
      if (last !== undefined) {
        await this.#share(strand, last.sharer.end, signal);
        shares.push({ fuser: strand.link.fuser, sharer: strand.cache, spans, report: strand.report });
      }
    }
    const began = performance.now();
    const reports = await fuseShares(this.#fused, shares, this.#order, signal);
    this.fuseMs += performance.now() - began;
    for (const [i, report] of reports.entries()) {
      shares[i]?.report.add(report);
    }
  }

  /** The clean stream reads tokens, and the fused cache takes its rows. */
  async #appendClean(tokens: Uint32Array, positions: Uint32Array, signal: AbortSignal | undefined): Promise<void> {
    const clean = this.#clean?.state;
    if (clean === undefined) {
      throw new Error("there is no clean cache");
    }
    const start = clean.native.length;
    await forward(clean, tokens, positions, "none", signal);
    this.#fused.life.check();
    sync(() => this.#fused.native.append(clean.native, start, start + tokens.length, false));
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
