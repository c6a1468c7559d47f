import { join } from "node:path";
import type { Who } from "../demo/pair.js";
import { loadFuser, loadModel, type Pair, trainFuser } from "../index.js";
import { Random } from "../random.js";
import { makeTokenizer, RunningMean, type StageContext, trainStage } from "./models.js";
import { answerProbe, knownProbe } from "./probe.js";
import { makeQuestions, type PairQuestion } from "./questions.js";
import type { PairRecipe } from "./recipe.js";
import { fuserSamples } from "./samples.js";
import { type PairScore, scorePair } from "./score.js";
import type { Inputs, Stages } from "./stages.js";
import { makeWorld, type World } from "./world.js";

/** What the build needs to know; `onProgress` hears how far each thing under way is. */
export interface BuildOptions {
  readonly work: string;
  readonly recipe: PairRecipe;
  readonly seed: bigint;
  readonly fuserSeeds: number;
  readonly signal: AbortSignal;
  readonly stages: Stages;
  onProgress(thing: string, done: number, text: string): void;
}

/** What the probes found, shares from 0 to 1. */
export interface Probed {
  /** The validation people's questions whose answer a linear map reads off the sharer's cache. */
  readonly answer: number;
  /** The area under the ROC curve of a linear map that tells known from unknown people by the receiver's cache. */
  readonly known: number;
}

/** One fuser and how it does on the people that are asked once. */
export interface BuiltFuser {
  readonly folder: string;
  readonly seed: bigint;
  readonly final: PairScore;
}

/** A pair that was built, in its work folder. */
export interface Built {
  readonly world: World;
  readonly questions: readonly PairQuestion[];
  readonly models: Readonly<Record<Who, string>>;
  readonly probes: Probed;
  readonly probesMet: boolean;
  /** None where a probe says that no fuser would work. */
  readonly fusers: readonly BuiltFuser[];
  /** The first fuser on questions.jsonl. */
  readonly test: PairScore | null;
  /** Of all stages, as far as they ran without interruption. */
  readonly seconds: number;
}

/** Builds a pair, stage by stage; those that are done already are passed over. Aborts throw `signal.reason`. */
export async function buildPair(options: BuildOptions): Promise<Built> {
  return await new PairBuild(options).run();
}

type Models = Readonly<Record<Who, string>>;
/** A stage's result and its key, which is in the inputs of what follows from it. */
interface Keyed<T> {
  readonly result: T;
  readonly key: string;
}

class PairBuild {
  readonly #options: BuildOptions;
  readonly #world: World;
  /** What the world follows from, and so everything. */
  readonly #origin: unknown;
  #seconds = 0;

  constructor(options: BuildOptions) {
    const { seed, recipe } = options;
    this.#options = options;
    this.#world = makeWorld(new Random(seed, "world"), recipe.world);
    this.#origin = { seed: String(seed), world: recipe.world };
  }

  async run(): Promise<Built> {
    const { recipe, fuserSeeds, seed } = this.#options;
    const world = this.#world;
    const questions = this.#questions("test");
    // One thread each: models of this size lose more to handing work over than two threads win.
    const [sharer, receiver] = await Promise.all([this.#model("sharer"), this.#model("receiver")]);
    const models = { sharer: sharer.result, receiver: receiver.result };
    const from = { sharer: sharer.key, receiver: receiver.key, probes: recipe.probes };
    const probes = await this.#stage("probes", { from }, () => this.#withPair(models, (pair) => this.#probe(pair)));
    const { answer, known } = probes.result;
    const probesMet = answer >= recipe.probes.answer && known >= recipe.probes.known;
    const built = { world, questions, models, probes: probes.result, probesMet };
    if (!probesMet) return { ...built, fusers: [], test: null, seconds: this.#seconds };
    const seeds = Array.from({ length: fuserSeeds }, (_, i) => seed + BigInt(i));
    const final = this.#questions("final");
    const made = await pooled(seeds, AT_ONCE, async (one) => {
      const fuser = await this.#fuser(models, one, probes.key);
      return { fuser, final: await this.#score(models, fuser, one, "final", final) };
    });
    const fusers = made.map((one, i) => ({ folder: one.fuser.result, seed: seeds[i] ?? seed, final: one.final }));
    const [kept] = made;
    const test = kept ? await this.#score(models, kept.fuser, seed, "test", questions) : null;
    return { ...built, fusers, test, seconds: this.#seconds };
  }

  async #stage<T>(name: string, { from, folder }: Inputs, work: () => Promise<T>): Promise<Keyed<T>> {
    this.#options.signal.throwIfAborted();
    const inputs = { from: { origin: this.#origin, ...Object(from) }, ...(folder === undefined ? {} : { folder }) };
    const done = await this.#options.stages.run(name, inputs, work);
    this.#seconds += done.seconds;
    return done;
  }

  #context(thing: string): StageContext {
    const { seed, signal, onProgress } = this.#options;
    return { world: this.#world, seed, signal, onProgress: (done, text) => onProgress(thing, done, text) };
  }

  /** Trains a model through all its stages; gives the last one's folder. */
  async #model(who: Who): Promise<Keyed<string>> {
    const { work, recipe } = this.#options;
    const { config, tokenizer: plan, stages } = recipe[who];
    let folder = join(work, who, "tokenizer");
    let from: Parameters<typeof trainStage>[1] = { tokenizer: folder, config };
    let { key } = await this.#stage(`${who}-tokenizer`, { from: { plan }, folder }, async () => {
      await makeTokenizer(folder, who, plan, this.#context(who));
      return {};
    });
    for (const [i, stage] of stages.entries()) {
      const name = `${who}-${i + 1}-${stage.name}`;
      const [begin, to] = [from, join(work, who, `${i + 1}-${stage.name}`)];
      const inputs = { from: { before: key, stage, ...(i === 0 ? { config } : {}) }, folder: to };
      const context = this.#context(`${who}, ${stage.name}`);
      ({ key } = await this.#stage(name, inputs, () => trainStage(to, begin, who, stage, context)));
      folder = to;
      from = { model: folder };
    }
    return { result: folder, key };
  }

  async #withPair<T>(models: Models, use: (pair: Pair) => Promise<T>): Promise<T> {
    await using receiver = await loadModel({ kind: "folder", path: models.receiver });
    await using sharer = await loadModel({ kind: "folder", path: models.sharer });
    return await use({ receiver, sharer });
  }

  async #probe({ receiver, sharer }: Pair): Promise<Probed> {
    const world = this.#world;
    const { probes, fuser } = this.#options.recipe;
    const draw = (who: Who, people: readonly string[], count: number) =>
      makeQuestions(world, who, people, count, new Random(this.#options.seed, "probes"));
    const train = draw("sharer", world.train, probes.learn);
    const own = draw("receiver", world.receiverTrain, probes.learn);
    const held = draw("sharer", world.validation, probes.held);
    const ownHeld = draw("receiver", world.receiverValidation, probes.held);
    const { layerMap } = fuser.recipe;
    const fused = [...layerMap.keys()].filter((layer) => layerMap[layer] !== null);
    return {
      answer: await answerProbe(sharer, train, held),
      known: await knownProbe(receiver, fused, [...train, ...own], [...held, ...ownHeld]),
    };
  }

  async #fuser(models: Models, seed: bigint, probed: string): Promise<Keyed<string>> {
    const { work, recipe, signal, onProgress } = this.#options;
    const folder = join(work, "fuser", String(seed));
    const { mixture, recipe: plan } = recipe.fuser;
    const from = { probed, fuser: recipe.fuser, seed: String(seed) };
    const { key } = await this.#stage(`fuser-${seed}`, { from, folder }, () =>
      this.#withPair(models, async (pair) => {
        const samples = fuserSamples(this.#world, mixture, new Random(seed, "fuser"));
        const mean = new RunningMean();
        for await (const event of trainFuser(pair, samples, { ...plan, seed }, { folder, resume: true, signal })) {
          if (event.type === "done") await event.fuser.dispose();
          if (event.type !== "step") continue;
          const text = `loss ${mean.add(event.loss).toFixed(3)}, ${event.openGates} open gates`;
          onProgress(`fuser ${seed}`, (event.step + 1) / plan.maxSteps, text);
        }
        return { loss: mean.value };
      }),
    );
    return { result: join(folder, "final"), key };
  }

  /** As many questions of each side: of the people that a recipe is worked on with, or of those that are asked once. */
  #questions(split: "test" | "final"): readonly PairQuestion[] {
    const { recipe, seed } = this.#options;
    const world = this.#world;
    const random = new Random(seed, `${split} questions`);
    const own = split === "test" ? world.receiverTest : world.receiverFinal;
    const count = recipe.questions;
    return [
      ...makeQuestions(world, "sharer", world[split], count, random),
      ...makeQuestions(world, "receiver", own, count, random, count),
    ];
  }

  async #score(
    models: Models,
    { result: folder, key }: Keyed<string>,
    seed: bigint,
    split: string,
    questions: readonly PairQuestion[],
  ): Promise<PairScore> {
    const { onProgress, signal, seed: origin } = this.#options;
    const from = { fuser: key, questions: questions.length };
    const { result } = await this.#stage(`score-${seed}-${split}`, { from }, () =>
      this.#withPair(models, async (pair) => {
        await using fuser = await loadFuser({ kind: "folder", path: folder }, pair);
        let parts = 0;
        return await scorePair(fuser, questions, this.#world, origin, (part) => {
          signal.throwIfAborted();
          onProgress(`scores of fuser ${seed}`, ++parts / SCORED, part);
        });
      }),
    );
    return result;
  }
}

/** Fusers that are trained at once, one thread each: as many as the bar asks for. */
const AT_ONCE = 3;
/** Parts of a score: four systems, three controls, the swap. */
const SCORED = 8;

/** Does the same with each item, `most` at a time; results in the items' order. */
async function pooled<T, R>(items: readonly T[], most: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const waiting = [...items.entries()];
  const lane = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) results[next[0]] = await work(next[1]);
  };
  await Promise.all(Array.from({ length: most }, lane));
  return results;
}
