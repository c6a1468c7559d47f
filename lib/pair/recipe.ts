import type { FuserRecipe, ModelRecipe } from "../index.js";
import type { Lesson, Mixture } from "./documents.js";
import type { FuserMixture } from "./samples.js";
import { fullSizes, type WorldSizes } from "./world.js";

/** One stretch of a model's training, warm-started from the one before. */
export interface ModelStage {
  readonly name: string;
  readonly mixture: Mixture;
  readonly recipe: Omit<ModelRecipe, "seed">;
  /** Begin with few people. */
  readonly lessons?: readonly Lesson[];
  /** Of "unknown" documents, the share about people of the sharer's train split (their names, never a fact). Default 0. */
  readonly foreign?: number;
}

/** A tokenizer is made from so many documents; `vocab`: its most tokens. */
export interface TokenizerPlan {
  readonly documents: number;
  readonly vocab: number;
}

/** One model: its shape (a config.json without what the tokenizer knows), its tokenizer, and how it is trained. */
export interface ModelPlan {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tokenizer: TokenizerPlan;
  readonly stages: readonly ModelStage[];
}

/** A fuser's recipe, with what the build has to know of it. */
export interface FuserPlan extends Omit<FuserRecipe, "seed"> {
  readonly layerMap: readonly (number | null)[];
  readonly maxSteps: number;
}

/** Everything that makes a pair, but the seed. */
export interface PairRecipe {
  readonly world: WorldSizes;
  readonly sharer: ModelPlan;
  readonly receiver: ModelPlan;
  readonly fuser: { readonly mixture: FuserMixture; readonly recipe: FuserPlan };
  /** Questions of each side in questions.jsonl, and as many for the card. */
  readonly questions: number;
  /** Questions that the probes learn from and are held to, and the shares that they must reach, or the build stops. */
  readonly probes: {
    readonly learn: number;
    readonly held: number;
    readonly answer: number;
    readonly known: number;
  };
}

/** More tokens than the words of the world need: each becomes one, in both vocabularies. */
const tokenizer: TokenizerPlan = { documents: 40_000, vocab: 2048 };

const common = {
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  hidden_act: "silu",
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  use_sliding_window: false,
  initializer_range: 0.06,
} as const;

const sharerConfig = {
  ...common,
  model_type: "qwen2",
  architectures: ["Qwen2ForCausalLM"],
  hidden_size: 128,
  intermediate_size: 320,
  num_hidden_layers: 5,
  num_attention_heads: 4,
  num_key_value_heads: 2,
} as const;

const receiverConfig = {
  ...common,
  model_type: "qwen3",
  architectures: ["Qwen3ForCausalLM"],
  hidden_size: 112,
  intermediate_size: 288,
  num_hidden_layers: 4,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 24,
  attention_bias: false,
} as const;

/**
 * Outputs of these blocks are scored too, so that a fact is there before the layers whose keys and values are fused are reached. On
 * from the start: with the first few people it is learned as quickly as without.
 */
const earlyExit = { layers: [1, 2], weight: 1 } as const;

/** "quoted" questions stand where a chat prompt has them, so that a fact is looked up in the very row that is fused. */
const sharerMixture: Mixture = { biography: 16, tell: 8, plain: 18, quoted: 30, chat: 28 };
const receiverMixture: Mixture = {
  biography: 10,
  tell: 5,
  chat: 14,
  plain: 14,
  quoted: 22,
  "two-hop": 5,
  country: 2,
  reading: 10,
  unknown: 12,
  "unknown-plain": 12,
};

/** A receiver that says "unknown" has to learn that a biography in the prompt is knowledge too, or text-to-text has no fair chance. */
const reading: Mixture = {
  biography: 4,
  tell: 2,
  chat: 10,
  plain: 8,
  quoted: 18,
  "two-hop": 4,
  country: 2,
  interview: 30,
  unknown: 10,
  "unknown-plain": 12,
};

/** The pair that comes with the package. */
export const fullRecipe: PairRecipe = {
  world: fullSizes,
  sharer: {
    config: sharerConfig,
    tokenizer,
    stages: [
      {
        name: "facts",
        mixture: sharerMixture,
        recipe: { steps: 2000, learningRate: 2.5e-3, warmupSteps: 50, earlyExit },
        lessons: [
          { documents: 9600, people: 60 },
          { documents: 9600, people: 240 },
        ],
      },
    ],
  },
  receiver: {
    config: receiverConfig,
    tokenizer,
    stages: [
      {
        name: "facts",
        mixture: receiverMixture,
        foreign: 0.5,
        recipe: { steps: 2000, learningRate: 2.5e-3, warmupSteps: 50, earlyExit },
        lessons: [{ documents: 12_800, people: 60 }],
      },
      {
        name: "reading",
        mixture: reading,
        foreign: 0.5,
        recipe: { steps: 500, batchSize: 48, learningRate: 1.5e-3, warmupSteps: 25, earlyExit },
        lessons: [
          { documents: 3840, people: 280, values: 3 },
          { documents: 2400, people: 280, values: 8 },
        ],
      },
      {
        name: "settled",
        mixture: reading,
        foreign: 0.5,
        recipe: { steps: 350, batchSize: 48, learningRate: 1.2e-3, warmupSteps: 20, earlyExit },
      },
    ],
  },
  fuser: {
    mixture: { own: 0.35, ownElsewhere: 0.6, swapped: 0.8, stranger: 0.4 },
    recipe: {
      hidden: 192,
      intermediate: 384,
      layers: 3,
      layerMap: [null, null, 3, 4],
      align: "first",
      learningRate: 2e-3,
      weightDecay: 0.05,
      dropout: 0.1,
      warmupRatio: 0.1,
      batchSize: 32,
      accumulate: 1,
      maxSteps: 3500,
    },
  },
  questions: 500,
  probes: { learn: 2000, held: 200, answer: 0.75, known: 0.9 },
};

/** A toy: every stage runs, nothing is learned. */
export const quickRecipe: PairRecipe = {
  ...fullRecipe,
  sharer: shortened(fullRecipe.sharer),
  receiver: shortened(fullRecipe.receiver),
  fuser: {
    ...fullRecipe.fuser,
    recipe: { ...fullRecipe.fuser.recipe, hidden: 16, intermediate: 16, batchSize: 8, maxSteps: 4 },
  },
  questions: 10,
  probes: { learn: 40, held: 20, answer: 0, known: 0 },
};

function shortened(plan: ModelPlan): ModelPlan {
  return {
    ...plan,
    tokenizer: { ...plan.tokenizer, documents: 4000 },
    stages: plan.stages.map((stage) => ({ ...stage, recipe: { ...stage.recipe, steps: 4, batchSize: 8 } })),
  };
}
