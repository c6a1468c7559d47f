// Caches, files of them, kept prefixes.
import { expectTypeOf } from "expect-type";
import {
  type CacheFile,
  type CacheForm,
  type CacheOptions,
  type CachePolicy,
  type CacheShape,
  createPrefixStore,
  type FusedRows,
  inspectCache,
  type KvCache,
  type LoadCacheOptions,
  loadCache,
  type Model,
  type PrefixEntry,
  type PrefixMatch,
  type PrefixReason,
  type PrefixStore,
  type PrefixStoreOptions,
  type QuantizedCache,
  type QuantizedForm,
  type QuantizeOptions,
  type QuantizeReport,
  type ReusedRows,
  type SaveOptions,
  type SaveReport,
  type Tokens,
  type ValueError,
} from "../../lib/index.js";

declare const model: Model;
declare const cache: KvCache;
declare const store: PrefixStore;
declare const tokens: Tokens;

expectTypeOf(model.cache).parameters.toEqualTypeOf<[options?: CacheOptions | undefined]>();
expectTypeOf(model.cache).returns.toEqualTypeOf<KvCache>();
expectTypeOf(model.prefill).returns.resolves.toEqualTypeOf<KvCache>();
expectTypeOf(cache).toExtend<Disposable>();
expectTypeOf(cache.dispose).returns.toEqualTypeOf<void>();
expectTypeOf(cache.shape).toEqualTypeOf<CacheShape>();
expectTypeOf(cache.fork).returns.toEqualTypeOf<KvCache>();
expectTypeOf(cache.slice).parameters.toEqualTypeOf<[start: number, end?: number | undefined]>();
expectTypeOf(cache.append).parameters.toEqualTypeOf<[other: KvCache]>();
expectTypeOf(cache.read).parameter(1).toEqualTypeOf<"key" | "value">();
expectTypeOf(cache.read).returns.toEqualTypeOf<Float32Array>();
expectTypeOf(cache.write).parameter(3).toEqualTypeOf<Float32Array>();
expectTypeOf<CachePolicy["kind"]>().toExtend<string>();
expectTypeOf<{ kind: "sinks" }>().toExtend<CachePolicy>();

// Fewer bits: a cache of its own, and what it came to.
expectTypeOf<QuantizedForm>().toEqualTypeOf<"int8" | "int4">();
expectTypeOf(cache.quantize).parameters.toEqualTypeOf<[form: QuantizedForm, options?: QuantizeOptions | undefined]>();
expectTypeOf(cache.quantize).returns.resolves.toEqualTypeOf<QuantizedCache>();
expectTypeOf<QuantizedCache["report"]>().toEqualTypeOf<QuantizeReport>();
expectTypeOf<CacheForm>().toEqualTypeOf<"plain" | QuantizedForm>();

// Files: what a save came to, what a file says of itself.
expectTypeOf(cache.save).parameters.toEqualTypeOf<[path: string, options?: SaveOptions | undefined]>();
expectTypeOf(cache.save).returns.resolves.toEqualTypeOf<SaveReport>();
expectTypeOf<SaveReport["keyError"]>().toEqualTypeOf<ValueError>();
expectTypeOf(loadCache).parameters.toEqualTypeOf<
  [path: string, model: Model, options?: LoadCacheOptions | undefined]
>();
expectTypeOf(loadCache).returns.resolves.toEqualTypeOf<KvCache>();
expectTypeOf(inspectCache).parameters.toEqualTypeOf<[path: string]>();
expectTypeOf(inspectCache).returns.resolves.toEqualTypeOf<CacheFile>();
expectTypeOf<CacheFile["parts"][number]["form"]>().toEqualTypeOf<CacheForm>();
expectTypeOf<CacheFile["fused"]>().toEqualTypeOf<readonly FusedRows[]>();

// Kept prefixes: a match has a cache or a reason why not.
expectTypeOf(createPrefixStore).parameters.toEqualTypeOf<[options?: PrefixStoreOptions | undefined]>();
expectTypeOf(createPrefixStore).returns.toEqualTypeOf<PrefixStore>();
expectTypeOf(store.entries).toEqualTypeOf<readonly PrefixEntry[]>();
expectTypeOf(store.put).returns.toEqualTypeOf<boolean>();
const match = store.find(model, tokens);
expectTypeOf(match).toEqualTypeOf<PrefixMatch>();
expectTypeOf(match.reason).toEqualTypeOf<PrefixReason>();
if (match.cache === null) expectTypeOf(match.reused).toEqualTypeOf<0>();
else expectTypeOf(match.cache).toEqualTypeOf<KvCache>();
expectTypeOf<Extract<PrefixReason, { kind: "token differs" }>["kept"]>().toEqualTypeOf<number>();
expectTypeOf<ReusedRows["sharers"]>().toEqualTypeOf<readonly number[]>();

export async function wrong() {
  // @ts-expect-error plain is not fewer bits
  await cache.quantize("plain");
  // @ts-expect-error no such policy
  model.cache({ capacity: 64, policy: { kind: "oldest" } });
  // @ts-expect-error keys or values
  cache.read(0, "keys");
  // @ts-expect-error rows are float32
  cache.write(0, "key", 0, new Float64Array(4));
  // @ts-expect-error a model tells whether the cache is its own
  await loadCache("cache.safetensors");
  // @ts-expect-error read only
  cache.length = 0;
  // @ts-expect-error a match may be none
  store.find(model, tokens).cache.length;
}
