import { trainBpe, writeTokenizer } from "../bpe/index.js";
import type { Who } from "../demo/pair.js";
import { type Document, type ModelInit, trainModel } from "../index.js";
import { Random } from "../random.js";
import { Tokenizer } from "../tokens/tokenizer.js";
import { Drafts, type Mixture, written } from "./documents.js";
import { DraftEncoder, PATTERN } from "./encode.js";
import type { ModelPlan, ModelStage, TokenizerPlan } from "./recipe.js";
import type { World } from "./world.js";

/** A pair of letters that is seen less often becomes no token. */
const RARE = 10;
const everything: Mixture = { biography: 1, tell: 1, plain: 1, quoted: 1, chat: 1, reading: 1, unknown: 1 };
const ofReceiver: Mixture = { ...everything, "two-hop": 1, country: 1 };

/** What a stage of the build is given. `onProgress` hears of every step. */
export interface StageContext {
  readonly world: World;
  readonly seed: bigint;
  readonly signal: AbortSignal;
  onProgress(done: number, text: string): void;
}

/** Makes a model's tokenizer from documents of the world. IO_FAILED. */
export async function makeTokenizer(
  folder: string,
  who: Who,
  { documents, vocab }: TokenizerPlan,
  { world, seed }: StageContext,
): Promise<void> {
  const mixture = who === "receiver" ? ofReceiver : everything;
  const drafts = new Drafts(world, who).stream(mixture, new Random(seed, `tokenizer of the ${who}`));
  const texts = Array.from({ length: documents }, () => written(drafts.next().value));
  await writeTokenizer(folder, await trainBpe(texts, { vocab, pattern: PATTERN, minFrequency: RARE }));
}

/**
 * Runs one stage of a model's training, or goes on with it; gives the mean loss of the last steps. `from`: the folder of the stage
 * before, or of the tokenizer and a config.json without what the tokenizer knows. Errors of trainModel.
 */
export async function trainStage(
  folder: string,
  from: { readonly model: string } | { readonly tokenizer: string; readonly config: ModelPlan["config"] },
  who: Who,
  stage: ModelStage,
  { world, seed, signal, onProgress }: StageContext,
): Promise<{ readonly loss: number | null }> {
  const encoder = await DraftEncoder.open("model" in from ? from.model : from.tokenizer);
  const drafts = new Drafts(world, who, nobody(world, stage.foreign ?? 0));
  const stream = drafts.stream(stage.mixture, new Random(seed, `${who}, ${stage.name}`), stage.lessons);
  async function* documents(): AsyncGenerator<Document, void> {
    for (const draft of stream) yield await encoder.encode(draft);
  }
  const init = "model" in from ? { folder: from.model } : await firstInit(from.config, from.tokenizer);
  const mean = new RunningMean();
  const events = trainModel(init, documents(), { ...stage.recipe, seed }, { folder, resume: true, signal });
  for await (const event of events) {
    if (event.type !== "step") continue;
    onProgress((event.step + 1) / stage.recipe.steps, `loss ${mean.add(event.loss).toFixed(3)}`);
  }
  return { loss: mean.value };
}

async function firstInit(config: ModelPlan["config"], tokenizer: string): Promise<ModelInit> {
  const { size, specials } = await Tokenizer.load(tokenizer);
  const known = { vocab_size: size, eos_token_id: specials.eos, pad_token_id: specials.pad };
  return { config: { ...config, ...known }, tokenizer };
}

/** Whom "unknown" documents are about: `foreign` of them are of the sharer's train split. */
function nobody({ strangers, train }: World, foreign: number): readonly string[] {
  const times = Math.round(((foreign / (1 - foreign)) * strangers.length) / train.length);
  return [...strangers, ...Array.from({ length: times }, () => train).flat()];
}

/** A mean that forgets: about the last fifty values. */
export class RunningMean {
  /** Null before the first value. */
  value: number | null = null;

  add(next: number): number {
    this.value = this.value === null ? next : 0.98 * this.value + 0.02 * next;
    return this.value;
  }
}
