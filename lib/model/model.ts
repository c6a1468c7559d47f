import { basename, join, resolve } from "node:path";
import { makeCache } from "../cache/cache.js";
import { checkPolicy } from "../cache/policy.js";
import { commonRows } from "../cache/prefix.js";
import { deviceName, requireDevice } from "../device.js";
import { C2CError } from "../errors.js";
import { GenerationRun } from "../generation/generation.js";
import { decoding } from "../generation/options.js";
import { SoloSource } from "../generation/solo.js";
import { Life, unwatch, watch } from "../handles.js";
import { native, openNative, run, sync } from "../native.js";
import { integer, invalid, loadDevice, loadDType, loadQuantize } from "../options.js";
import { Tokenizer } from "../tokens/tokenizer.js";
import type {
  CacheOptions,
  Device,
  DType,
  EncodeOptions,
  GenerateOptions,
  Generation,
  KvCache,
  LoadOptions,
  Message,
  Model,
  ModelShape,
  Prompt,
  Source,
  Tokens,
} from "../types.js";
import { fingerprintFiles, once, stampFiles } from "../weights/fingerprint.js";
import { resolveSource } from "../weights/source.js";
import { readModelConfig } from "./config.js";
import { checkPositions, extend, forward, ownCache } from "./forward.js";
import { keepModelState, keepPromptOptions, type ModelState } from "./state.js";
import { checkIds, checkTokens, tag } from "./tokens.js";

/** Rows that a new cache has room for before it grows. */
const firstCapacity = 64;
/** Added tokens that a tokenizer may have beyond the embedding's rows (Gemma 3's text models have no row for the image token). */
const spareTokens = 64;

type PrefillOptions = NonNullable<Parameters<Model["prefill"]>[1]>;
type LogitsOptions = NonNullable<Parameters<Model["logits"]>[2]>;

class DecoderModel implements Model {
  readonly id: string;
  readonly shape: ModelShape;
  readonly device: Device;
  readonly dtype: DType;
  readonly #state: ModelState;

  constructor(id: string, shape: ModelShape, device: Device, state: ModelState) {
    this.id = id;
    this.shape = shape;
    this.device = device;
    this.dtype = state.native.dtype;
    this.#state = state;
  }

  get bytes(): number {
    this.#state.life.check();
    return sync(() => this.#state.native.bytes);
  }

  get disposed(): boolean {
    return this.#state.life.disposed;
  }

  async encode(prompt: string | readonly Message[], options: EncodeOptions = {}): Promise<Prompt> {
    this.#state.life.check();
    const messages = toMessages(prompt);
    const { text, ids, spans } = await this.#state.tokenizer.prompt(messages, options);
    const encoded: Prompt = { text, tokens: this.#tag(ids), messages, spans };
    keepPromptOptions(encoded, { ...options });
    return encoded;
  }

  async encodeText(text: string): Promise<Tokens> {
    this.#state.life.check();
    if (typeof text !== "string") {
      throw invalid("text", "must be a string");
    }
    return this.#tag(await this.#state.tokenizer.encode(text));
  }

  tokens(ids: Iterable<number>): Tokens {
    this.#state.life.check();
    return this.#tag(checkIds(ids, this.shape.vocab));
  }

  decodeTokens(tokens: Iterable<number>, options?: { readonly skipSpecial?: boolean }): string {
    this.#state.life.check();
    return this.#state.tokenizer.decode(tokens, { skipSpecial: options?.skipSpecial ?? false });
  }

  cache(options: CacheOptions = {}): KvCache {
    this.#state.life.check();
    const { policy } = options;
    if (policy !== undefined && (options.capacity === undefined || options.grow === true)) {
      throw invalid("policy", "needs a `capacity`, and a cache that does not grow");
    }
    const most = policy === undefined ? Number.MAX_SAFE_INTEGER : this.shape.context;
    const capacity = integer("capacity", options.capacity ?? firstCapacity, 1, most);
    const grow = policy === undefined && (options.grow ?? true);
    return makeCache(
      this,
      sync(() => this.#state.native.cache(capacity, grow, policy === undefined ? null : checkPolicy(policy))),
      { capacity: grow ? null : capacity, policy: policy ?? null },
    );
  }

  async prefill(tokens: Tokens, options: PrefillOptions = {}): Promise<KvCache> {
    const ids = this.#check(tokens);
    const { into, from, positions, signal } = options;
    signal?.throwIfAborted();
    if (into !== undefined && from !== undefined) {
      throw invalid("from", "cannot be given together with `into`");
    }
    const cache = into ?? (from === undefined ? this.cache() : this.#prefix(from, ids, positions));
    try {
      const reused = from === undefined ? 0 : cache.reused;
      await this.#append(cache, ids.subarray(reused), "none", { signal, positions: positions?.subarray(reused) });
      return cache;
    } catch (error) {
      if (into === undefined) {
        cache.dispose();
      }
      throw error;
    }
  }

  async logits(cache: KvCache, tokens: Tokens, options: LogitsOptions = {}): Promise<Float32Array> {
    const { signal, positions } = options;
    signal?.throwIfAborted();
    const logits = await this.#append(cache, this.#check(tokens), "all", { signal, positions });
    return logits ?? new Float32Array(0);
  }

  generate(cache: KvCache, next: Tokens, options: GenerateOptions = {}): Generation {
    const ids = this.#check(next, "next").slice();
    if (ids.length === 0) {
      throw invalid("next", "must hold one token or more");
    }
    const state = ownCache(this, cache);
    const checked = decoding(this, this.#state.eos, options);
    return new GenerationRun(this.#state.tokenizer, checked, new SoloSource(cache, state, ids, checked));
  }

  async dispose(): Promise<void> {
    unwatch(this.#state.life);
    await this.#state.life.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #check(tokens: Tokens, option = "tokens"): Uint32Array {
    this.#state.life.check();
    return checkTokens(tokens, this.#state.tokenizer.vocabulary, this.shape.vocab, option);
  }

  #tag(ids: Uint32Array): Tokens {
    return tag(ids, this.#state.tokenizer.vocabulary);
  }

  async #append(
    cache: KvCache,
    ids: Uint32Array,
    logits: "none" | "all",
    options: { readonly signal: AbortSignal | undefined; readonly positions: Uint32Array | undefined },
  ): Promise<Float32Array | null> {
    const state = ownCache(this, cache);
    const release = state.claim(logits === "none" ? "prefill" : "logits");
    try {
      if (state.native.most !== null) {
        if (options.positions !== undefined) {
          throw invalid("positions", "are given by the policy of this cache");
        }
        return await extend(state, ids, logits, options.signal);
      }
      const positions = checkPositions(this, ids.length, state.last(), options.positions);
      return await forward(state, ids, positions, logits, options.signal);
    } finally {
      release();
    }
  }

  /** A fork of `from`, cut to the longest run of rows that begin `ids` and stand at `positions` (default 0, 1, 2, …). */
  #prefix(from: KvCache, ids: Uint32Array, positions: Uint32Array | undefined): KvCache {
    const state = ownCache(this, from, "from");
    state.free("fork");
    if (state.native.most !== null) {
      throw invalid("from", "has a policy: its rows may have read what has left");
    }
    const kept = { ids: sync(() => state.native.tokens()), positions: sync(() => state.native.positions()) };
    const reused = commonRows(kept, { ids, positions: checkPositions(this, ids.length, -1, positions) });
    const cache = makeCache(
      this,
      sync(() => state.native.fork()),
      state.origin(reused),
    );
    cache.truncate(reused);
    return cache;
  }
}

/** A prompt as messages; a string is one user message. OPTION_INVALID. */
export function toMessages(prompt: string | readonly Message[]): readonly Message[] {
  if (typeof prompt === "string") {
    return [{ role: "user", content: prompt }];
  }
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw invalid("prompt", "must be a string or an array of one message or more");
  }
  return prompt.map(({ role, content }: Message) => {
    if (!["system", "user", "assistant"].includes(role) || typeof content !== "string") {
      throw invalid("prompt", "a message has a role (system, user or assistant) and a string as content");
    }
    return { role, content };
  });
}

/**
 * Loads a decoder and its tokenizer from a folder or the hub. Weights are computed in what the files hold, float16 in bfloat16,
 * unless `dtype` says otherwise; with `quantize` weights take 8 or 4 bits, and `dtype` is what caches are kept in. Weights and caches
 * lie on `device`: UNSUPPORTED where there is none such, or for quantised weights on a GPU. Fails with IO_FAILED, FILE_INVALID,
 * SHAPE_MISMATCH, UNSUPPORTED, DOWNLOAD_FAILED, OUT_OF_MEMORY or NATIVE_MISSING; an abort rejects with `signal.reason`.
 */
export async function loadModel(source: Source, options: LoadOptions = {}): Promise<Model> {
  const { signal, onProgress } = options;
  loadDType(options, "float32");
  const quantize = loadQuantize(options);
  const device = loadDevice(options);
  if (device.kind !== "cpu" && quantize !== null) {
    const details = { what: `quantize ${quantize} on ${deviceName(device)}`, supported: ["float32", "bfloat16"] };
    throw new C2CError("UNSUPPORTED", details, "quantised weights run on the CPU alone");
  }
  signal?.throwIfAborted();
  requireDevice(device);
  const notify = onProgress && ((event: Parameters<typeof onProgress>[0]) => onProgress(event));
  const folder = await resolveSource(source, "model", {
    ...(signal && { signal }),
    ...(notify && { onProgress: notify }),
  });
  // Another thread reads the tokenizer; meanwhile this one reads headers and opens libtorch.
  const reading = Tokenizer.load(folder, signal);
  reading.catch(() => undefined); // awaited below, unless something else fails before
  const config = await readModelConfig(folder);
  const dtype = loadDType(options, config.dtype);
  const stamps = await stampFiles([join(folder, "config.json"), ...config.table.files]);
  openNative();
  const tokenizer = await reading;
  if (tokenizer.size > config.shape.vocab + spareTokens) {
    const actual = [config.shape.vocab, config.shape.hidden];
    const details = { tensor: "embed_tokens.weight", expected: [tokenizer.size, "hidden"], actual };
    throw new C2CError("SHAPE_MISMATCH", details, "the tokenizer has more tokens than the model's vocabulary");
  }
  const progress = notify && ((tensors: number, of: number) => notify({ phase: "weights", tensors, of }));
  const loaded = await run(signal, (cancel) =>
    native().loadModel(config.spec, config.table, dtype, quantize, progress ?? null, cancel, device),
  );
  const life = new Life("model", () => loaded.dispose());
  const id = source.kind === "hub" ? source.repo : resolve(source.path);
  const state: ModelState = {
    native: loaded,
    life,
    tokenizer,
    eos: config.eos,
    name: source.kind === "hub" ? source.repo : basename(id),
    fingerprint: once(() => fingerprintFiles(stamps, quantize === null ? [] : [quantize])),
  };
  const model = new DecoderModel(id, config.shape, device, state);
  keepModelState(model, state);
  watch(model, life);
  return model;
}
