import { type Command, InvalidArgumentError, Option } from "commander";
import type { AlignStrategy, Device, EncodeOptions, GenerateOptions, Link } from "../index.js";
import { deviceFlag, integerFlag } from "./flags.js";

/** What generate and chat are told. */
export interface AnswerFlags {
  readonly receiver: string;
  readonly sharer: readonly string[];
  readonly fuser: readonly string[];
  readonly device?: Device;
  readonly maxNewTokens: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly seed?: bigint;
  readonly system?: string;
  readonly thinking?: boolean;
  readonly align?: AlignStrategy;
  readonly span?: NonNullable<Link["span"]>;
  readonly order?: "sequential" | "parallel";
  readonly stop: readonly string[];
}

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

/** Adds the options that generate and chat share. */
export function addAnswerOptions(command: Command): Command {
  return command
    .requiredOption("--receiver <source>", "the model that answers: a folder or owner/name[@revision][:folder]")
    .option("--sharer <source>", "a model whose cache is fused in (repeatable)", collect, [])
    .option("--fuser <source>", "the fuser of the sharer at the same place (repeatable)", collect, [])
    .option("--device <name>", "where models and fusers are: cpu, cuda or cuda:1", deviceFlag)
    .option("--max-new-tokens <n>", "most tokens of an answer", integerFlag, 256)
    .option("--temperature <t>", "sample at this temperature; without it, greedy", positive)
    .option("--top-p <p>", "sample from the most likely tokens up to this probability", share)
    .option("--top-k <k>", "sample from the k most likely tokens", integerFlag)
    .option("--min-p <p>", "drop tokens below this share of the most likely one", share)
    .option("--seed <n>", "seed of the sampler", seed)
    .option("--system <text>", "system message")
    .option("--thinking", "let the model think where its template can")
    .addOption(
      new Option("--align <strategy>", "how tokens are aligned").choices(["same", "first", "longest", "bytes"]),
    )
    .addOption(new Option("--span <span>", "what is fused").choices(["prompt", "prompt-and-response"]))
    .addOption(new Option("--order <order>", "several sharers").choices(["sequential", "parallel"]))
    .option("--stop <text>", "end the answer before this text (repeatable)", collect, []);
}

/** The generation options that the flags stand for. */
export function answerOptions(flags: AnswerFlags): GenerateOptions & EncodeOptions {
  const { temperature, topP, topK, minP, seed: sampled, maxNewTokens, stop, thinking } = flags;
  const sampling: GenerateOptions["sampling"] =
    temperature === undefined
      ? { kind: "greedy" }
      : {
          kind: "sample",
          temperature,
          ...(topP === undefined ? {} : { topP }),
          ...(topK === undefined ? {} : { topK }),
          ...(minP === undefined ? {} : { minP }),
          ...(sampled === undefined ? {} : { seed: sampled }),
        };
  return { sampling, maxNewTokens, stop, ...(thinking === undefined ? {} : { thinking }) };
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) throw new InvalidArgumentError("a number above 0 is needed");
  return value;
}

function share(text: string): number {
  const value = Number(text);
  if (text === "" || !(value >= 0 && value <= 1)) throw new InvalidArgumentError("a number from 0 to 1 is needed");
  return value;
}

function seed(text: string): bigint {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("a whole number is needed");
  return BigInt(text);
}
