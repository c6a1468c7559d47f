import { type CacheState, cacheState } from "../cache/cache.js";
import type { FusionSource } from "../cache/history.js";
import { C2CError } from "../errors.js";
import { ownCache } from "../model/forward.js";
import { modelState } from "../model/state.js";
import { native, run } from "../native.js";
import { choice, integer, invalid } from "../options.js";
import type { Contribution, FuseReport, Fuser, KvCache, SpanPair } from "../types.js";
import { once } from "../weights/fingerprint.js";
import { fingerprintFuser } from "./fingerprint.js";
import { fuserState } from "./state.js";

/** How several sharers are combined. */
export type FuseOrder = "sequential" | "parallel";

/** A contribution whose caches the caller has claimed. */
export interface Share {
  readonly fuser: Fuser;
  readonly sharer: CacheState;
  readonly spans: readonly SpanPair[];
}

/**
 * The gated write: projects the sharers' rows and adds them to the receiver's, in place. "parallel": each projects from the clean
 * receiver rows, the differences are added; "sequential" (default): each sees what the one before wrote. Reports come in the order
 * of `from`.
 * The receiver's later rows must be prefilled after the fusion of earlier spans, since they attend to fused rows: several spans in
 * one call is for spans that were prefilled together. `Channel.prefill` does this right.
 * CACHE_FOREIGN for a cache of a model that the fuser was not loaded for, CACHE_BUSY, DISPOSED, OPTION_INVALID for spans that do
 * not fit.
 */
export async function fuse(
  receiver: KvCache,
  from: readonly Contribution[],
  options: { readonly order?: FuseOrder; readonly signal?: AbortSignal } = {},
): Promise<readonly FuseReport[]> {
  const order = choice("order", options.order ?? "sequential", ["sequential", "parallel"]);
  const target = cacheState(receiver, "receiver");
  target.life.check();
  const shares = from.map(({ fuser, sharer, spans }, i): Share => {
    fuserState(fuser, `from[${i}].fuser`).life.check();
    if (fuser.pair.receiver !== target.model) {
      const details = { expected: fuser.pair.receiver.id, actual: target.model.id };
      throw new C2CError(
        "CACHE_FOREIGN",
        details,
        "the receiver cache belongs to another model than the fuser's receiver",
      );
    }
    const state = ownCache(fuser.pair.sharer, sharer, `from[${i}].sharer`);
    return { fuser, sharer: state, spans: checkSpans(target, state, spans, `from[${i}].spans`) };
  });
  const releases = [target.claim("fuse")];
  try {
    for (const sharer of new Set(shares.map((share) => share.sharer))) {
      releases.push(sharer.share("fuse"));
    }
    return await fuseShares(target, shares, order, options.signal);
  } finally {
    for (const release of releases) {
      release();
    }
  }
}

/** Fuses on claimed caches, keeping every handle alive until it is done. */
export async function fuseShares(
  receiver: CacheState,
  shares: readonly Share[],
  order: FuseOrder,
  signal?: AbortSignal,
): Promise<readonly FuseReport[]> {
  signal?.throwIfAborted();
  const lives = new Set([receiver.life, modelState(receiver.model).life]);
  const contributions = shares.map(({ fuser, sharer, spans }) => {
    const { native: projectors, life } = fuserState(fuser);
    lives.add(life).add(sharer.life).add(modelState(sharer.model).life);
    const rows = spans.flatMap((span) => [span.receiver.start, span.receiver.end, span.sharer.start, span.sharer.end]);
    return { fuser: projectors, sharer: sharer.native, spans: Uint32Array.from(rows) };
  });
  for (const life of lives) {
    life.check();
  }
  if (shares.length === 0) {
    return [];
  }
  const work = run(signal, (cancel) => native().fuse(receiver.native, contributions, order, cancel));
  for (const life of lives) {
    life.track(work);
  }
  const reports = await work;
  for (const { fuser, spans } of shares) {
    receiver.history.add(
      fusionSource(fuser),
      spans.map((span) => span.receiver),
    );
  }
  return reports.map(({ positions, ms, layers }) => ({ positions, ms, gates: layers }));
}

const sources = new WeakMap<Fuser, FusionSource>();

/** What a receiver's history remembers of a fuser: never the fuser itself. */
function fusionSource(fuser: Fuser): FusionSource {
  const known = sources.get(fuser);
  if (known) return known;
  const { folder } = fuserState(fuser);
  const { name, fingerprint } = modelState(fuser.pair.sharer);
  const source = {
    kind: fuser.kind,
    fuser: once(() => fingerprintFuser(folder)),
    sharer: { name, fingerprint },
  };
  sources.set(fuser, source);
  return source;
}

function checkSpans(
  receiver: CacheState,
  sharer: CacheState,
  spans: readonly SpanPair[] | undefined,
  option: string,
): readonly SpanPair[] {
  const rows = receiver.native.length;
  const others = sharer.native.length;
  if (spans === undefined) {
    if (rows !== others) {
      throw invalid(option, `must be given: the receiver has ${rows} rows, the sharer ${others}`);
    }
    const all = { start: 0, end: Math.max(0, rows - 1) };
    return all.end > 0 ? [{ receiver: all, sharer: all }] : [];
  }
  return spans.map((span) => checkSpan(span, rows, others, option));
}

/** Row ranges of equal length inside both caches, or OPTION_INVALID. */
export function checkSpan(span: SpanPair, receiverRows: number, sharerRows: number, option: string): SpanPair {
  const { receiver, sharer } = span;
  integer(`${option}.receiver.start`, receiver.start, 0, receiverRows);
  integer(`${option}.receiver.end`, receiver.end, receiver.start, receiverRows);
  integer(`${option}.sharer.start`, sharer.start, 0, sharerRows);
  integer(`${option}.sharer.end`, sharer.end, sharer.start, sharerRows);
  if (receiver.end - receiver.start !== sharer.end - sharer.start) {
    throw invalid(option, "must have equal lengths on both sides");
  }
  return { receiver: { ...receiver }, sharer: { ...sharer } };
}
