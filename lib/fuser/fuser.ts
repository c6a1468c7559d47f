import type { FuserSpec, NativeFuser } from "../../typings/native.js";
import { deviceName } from "../device.js";
import { C2CError } from "../errors.js";
import { Life, unwatch, watch } from "../handles.js";
import { modelState, promptOptions } from "../model/state.js";
import { checkTokens } from "../model/tokens.js";
import { native, run, sync } from "../native.js";
import { choice, invalid, loadDevice, loadDType, loadQuantize } from "../options.js";
import type { Alignment, AlignStrategy, Device, Fuser, LoadOptions, Pair, Prompt, Source } from "../types.js";
import { resolveSource } from "../weights/source.js";
import { alignPrompt } from "./align.js";
import { type FuserFolder, readFuserFolder, writeFuserFolder } from "./folder.js";
import { type FuserState, keepFuserState } from "./state.js";

/** Every alignment strategy. */
export const strategies = ["same", "first", "longest", "bytes"] as const satisfies readonly AlignStrategy[];

type Gates = Fuser["gates"];

class ProjectorFuser implements Fuser {
  readonly pair: Pair;
  readonly kind: Fuser["kind"];
  readonly layerMap: readonly (number | null)[];
  readonly gates: Gates;
  readonly device: Device;
  readonly #state: FuserState;
  readonly #folder: FuserFolder;

  constructor(pair: Pair, folder: FuserFolder, gates: Gates, state: FuserState) {
    this.pair = { receiver: pair.receiver, sharer: pair.sharer };
    this.kind = folder.kind;
    this.layerMap = mapLayers(pair.receiver.shape.layers, folder);
    this.gates = gates;
    this.device = pair.receiver.device;
    this.#folder = folder;
    this.#state = state;
  }

  get bytes(): number {
    this.#state.life.check();
    return sync(() => this.#state.native.bytes);
  }

  async align(prompt: Prompt, options: { readonly strategy?: AlignStrategy } = {}): Promise<Alignment> {
    this.#state.life.check();
    const { receiver } = this.pair;
    const strategy = choice("strategy", options.strategy ?? this.#state.align, strategies);
    const { tokenizer, life } = modelState(receiver);
    life.check();
    const ids = checkTokens(prompt.tokens, tokenizer.vocabulary, receiver.shape.vocab, "prompt");
    return alignPrompt(this.pair, ids, prompt.messages, promptOptions(prompt), strategy);
  }

  async save(folder: string, options: { readonly format?: "native" | "reference" } = {}): Promise<void> {
    this.#state.life.check();
    const format = choice("format", options.format ?? "native", ["native", "reference"]);
    await writeFuserFolder(this.#folder, folder, format);
  }

  async dispose(): Promise<void> {
    unwatch(this.#state.life);
    await this.#state.life.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

function mapLayers(layers: number, folder: FuserFolder): (number | null)[] {
  const map = new Array<number | null>(layers).fill(null);
  for (const { receiverLayer, sharerLayer } of folder.projectors) {
    map[receiverLayer] = sharerLayer;
  }
  return map;
}

/** SHAPE_MISMATCH where the folder's fuser was not made for these two models. */
function checkPair(folder: FuserFolder, pair: Pair): void {
  for (const side of ["receiver", "sharer"] as const) {
    const { kvHeads, headDim, layers } = pair[side].shape;
    const made = folder[side];
    if (made.kvHeads !== kvHeads || made.headDim !== headDim) {
      const details = { tensor: `${side} heads`, expected: [kvHeads, headDim], actual: [made.kvHeads, made.headDim] };
      const message = `the fuser's ${side} has ${made.kvHeads} KV heads × ${made.headDim}, the model ${kvHeads} × ${headDim}`;
      throw new C2CError("SHAPE_MISMATCH", details, message);
    }
    for (const projector of folder.projectors) {
      const layer = side === "receiver" ? projector.receiverLayer : projector.sharerLayer;
      if (layer >= layers) {
        const details = { tensor: `${side} layer ${layer}`, expected: [layers], actual: [layer] };
        throw new C2CError("SHAPE_MISMATCH", details, `the fuser uses ${side} layer ${layer}, the model has ${layers}`);
      }
    }
  }
}

/**
 * Loads a fuser, in the reference's layout or in `fuser.json` + `fuser.safetensors`, for two loaded models. It computes in the
 * receiver's dtype unless `dtype` says otherwise, and on the receiver's device: another `device` is OPTION_INVALID. SHAPE_MISMATCH when weights are missing, too many or do not fit the pair;
 * otherwise fails like `loadModel`.
 */
export async function loadFuser(source: Source, pair: Pair, options: LoadOptions = {}): Promise<Fuser> {
  const { signal, onProgress } = options;
  modelState(pair.receiver, "pair.receiver").life.check();
  modelState(pair.sharer, "pair.sharer").life.check();
  const dtype = loadDType(options, pair.receiver.dtype);
  loadQuantize(options, []);
  const { device } = pair.receiver;
  if (deviceName(loadDevice(options, device)) !== deviceName(device)) {
    throw invalid("device", `must be the receiver's, which is ${deviceName(device)}`);
  }
  signal?.throwIfAborted();
  const notify = onProgress && ((event: Parameters<typeof onProgress>[0]) => onProgress(event));
  const path = await resolveSource(source, "fuser", {
    ...(signal && { signal }),
    ...(notify && { onProgress: notify }),
  });
  const read = await readFuserFolder(path);
  const projectors = read.projectors.toSorted((a, b) => a.receiverLayer - b.receiverLayer);
  const folder: FuserFolder = { ...read, projectors };
  checkPair(folder, pair);
  const spec: FuserSpec = { dtype, device, receiver: folder.receiver, sharer: folder.sharer, projectors };
  const loaded = await run(signal, (cancel) => native().loadFuser(spec, folder.table, cancel));
  const tensors = folder.table.tensors.length;
  notify?.({ phase: "weights", tensors, of: tensors });
  return makeFuser(pair, folder, loaded);
}

/** The public fuser over a native one; `folder` says what it is and gives its weights when it is saved. */
export function makeFuser(pair: Pair, folder: FuserFolder, loaded: NativeFuser): Fuser {
  const life = new Life("fuser", () => loaded.dispose());
  const gates = sync(() => loaded.gates());
  const open = (logit: number | null | undefined) => logit === null || (logit ?? 0) > 0;
  const idle = folder.projectors.map(({ receiverLayer: layer }, i) => {
    return { layer, key: open(gates[i]?.key), value: open(gates[i]?.value), keyWeight: 0, valueWeight: 0 };
  });
  const state: FuserState = { native: loaded, life, align: folder.align, idle, folder };
  const fuser = new ProjectorFuser(pair, folder, gates, state);
  keepFuserState(fuser, state);
  watch(fuser, life);
  return fuser;
}
