import { join } from "node:path";
import {
  connect,
  type GenerateOptions,
  type KvCache,
  type Link,
  type Model,
  type Section,
  type Span,
  type SpanPair,
  type TokenPrompt,
} from "../index.js";
import {
  type CaseResult,
  type Check,
  type Golden,
  pickRows,
  readGoldens,
  readJson,
  rowsOf,
  runCase,
} from "./golden.js";
import { type Loaded, sharerOf } from "./models.js";

interface Case {
  readonly name: string;
  readonly kind: "solo" | "c2c" | "aligned" | "include_response";
  readonly model?: string;
  readonly sharers?: readonly string[];
  readonly mode?: "sequential" | "parallel";
  readonly input_ids: readonly number[];
  readonly sharer_ids?: readonly number[] | readonly (readonly number[])[];
  readonly mask?: readonly number[];
  readonly sharer_mask?: readonly number[] | readonly (readonly number[])[];
  readonly sections?: readonly (readonly [mask: number, length: number])[];
  readonly tokens: readonly number[];
  readonly safe_tokens?: number;
  readonly gen?: {
    readonly repetition_penalty?: number;
    readonly presence_penalty?: number;
    readonly frequency_penalty?: number;
    readonly eos_token_id?: number | readonly number[];
  };
}

/** How much of a case is compared: generated tokens, and steps whose logits hang on compared tokens only. */
interface Extent {
  readonly tokens: number;
  readonly steps: number;
  readonly eos: boolean;
}

/** Runs cases.json of a goldens folder end to end through the public API. */
export async function runCases(folder: string, loaded: Loaded, report: (result: CaseResult) => void): Promise<void> {
  for (const given of await readJson<readonly Case[]>(join(folder, "cases.json"))) {
    report(
      await runCase("cases.json", given.name, async (check) => {
        const goldens = await readGoldens(join(folder, `case_${given.name}.safetensors`));
        await (given.kind === "solo"
          ? runSolo(given, goldens, loaded, check)
          : runChannel(given, goldens, loaded, check));
      }),
    );
  }
}

async function runSolo(given: Case, goldens: Map<string, Golden>, loaded: Loaded, check: Check): Promise<void> {
  const model = await loaded.model(given.model ?? "receiver");
  const tokens = model.tokens(given.input_ids);
  const cache = model.cache();
  const logits = await model.logits(cache, tokens);
  const all = goldens.get("logits");
  if (all) check.close("logits", logits, all.data);
  const last = goldens.get("logits_last8");
  if (last) check.close("logits_last8", logits.subarray(logits.length - last.data.length), last.data);
  compareCache("kv", goldens, cache, model, check);
  cache.truncate(tokens.length - 1);
  const generation = model.generate(cache, model.tokens(given.input_ids.slice(-1)), generateOptions(given));
  await compareGeneration(generation, given, goldens, extentOf(given, false), check);
  cache.dispose();
}

async function runChannel(given: Case, goldens: Map<string, Golden>, loaded: Loaded, check: Check): Promise<void> {
  const receiver = await loaded.model("receiver");
  const names = given.sharers ?? [];
  const links: Link[] = [];
  for (const name of names) {
    const link = {
      sharer: await loaded.model(sharerOf(name)),
      fuser: await loaded.fuser(name),
    };
    links.push(given.kind === "include_response" ? { ...link, span: "prompt-and-response" } : link);
  }
  const mask = given.mask ?? given.input_ids.map(() => 1);
  const prompt = tokenPrompt(given, receiver, links, mask);
  using channel = connect(receiver, links, {
    prefixes: false,
    order: given.mode ?? "sequential",
  });

  const { cache, logits } = await channel.prefill(prompt);
  compareCache("fused", goldens, cache, receiver, check, kept(mask));
  const tail = goldens.get("tail_logits");
  if (tail) {
    const [length = 0, vocab = 0] = tail.shape;
    check.close("tail_logits", logits, pickRows(tail.data, vocab, kept(mask.slice(mask.length - length))));
  }
  cache.dispose();

  const padded = mask.includes(0) && given.name.startsWith("aligned_");
  const extent = padded
    ? { tokens: mask.at(-1) ? 1 : 0, steps: mask.at(-1) ? 1 : 0, eos: false }
    : extentOf(given, true);
  await compareGeneration(channel.generate(prompt, generateOptions(given)), given, goldens, extent, check);
}

/** Leaves the pads out: rows keep the numbers they had as positions. */
function tokenPrompt(given: Case, receiver: Model, links: readonly Link[], mask: readonly number[]): TokenPrompt {
  const positions = kept(mask);
  const sections: Section[] = [];
  let start = 0;
  for (const [bits, length] of given.sections ?? []) {
    const rows = kept(mask.slice(start, start + length)).length;
    start += length;
    if (rows > 0)
      sections.push({
        length: rows,
        links: links.flatMap((_, i) => (bits > 0 && bits & (1 << i) ? [i] : [])),
      });
  }
  const sharers = links.map(({ sharer }, i) => {
    const ids = nth(given.sharer_ids, i) ?? given.input_ids;
    const sharerMask = nth(given.sharer_mask, i) ?? ids.map(() => 1);
    const own = kept(sharerMask);
    return {
      tokens: sharer.tokens(own.map((row) => ids[row] ?? 0)),
      positions: Uint32Array.from(own),
      rows: pairRows(mask, sharerMask),
    };
  });
  return {
    tokens: receiver.tokens(positions.map((row) => given.input_ids[row] ?? 0)),
    positions: Uint32Array.from(positions),
    sections,
    sharers,
  };
}

function nth(value: Case["sharer_ids"], i: number): readonly number[] | undefined {
  const first = value?.[0];
  if (value === undefined || first === undefined) return undefined;
  return typeof first === "number" ? (value as readonly number[]) : (value as readonly (readonly number[])[])[i];
}

function kept(mask: readonly number[]): number[] {
  return mask.flatMap((value, i) => (value ? [i] : []));
}

/** Runs of positions that both sides have, in each side's own rows. */
function pairRows(receiver: readonly number[], sharer: readonly number[]): SpanPair[] {
  const pairs: SpanPair[] = [];
  let open: { receiver: Span; sharer: Span } | null = null;
  let left = 0;
  let right = 0;
  for (const [i, value] of receiver.entries()) {
    if (value && sharer[i]) {
      open ??= {
        receiver: { start: left, end: left },
        sharer: { start: right, end: right },
      };
      open = {
        receiver: { start: open.receiver.start, end: left + 1 },
        sharer: { start: open.sharer.start, end: right + 1 },
      };
    } else if (open) {
      pairs.push(open);
      open = null;
    }
    left += value ? 1 : 0;
    right += sharer[i] ? 1 : 0;
  }
  if (open) pairs.push(open);
  return pairs;
}

function compareCache(
  prefix: string,
  goldens: Map<string, Golden>,
  cache: KvCache,
  model: Model,
  check: Check,
  rows?: readonly number[],
): void {
  const width = model.shape.kvHeads * model.shape.headDim;
  for (let layer = 0; layer < model.shape.layers; layer++) {
    for (const part of ["key", "value"] as const) {
      const name = `${prefix}.${part[0]}${layer}`;
      const golden = goldens.get(name);
      if (!golden) continue;
      const expected = rowsOf(golden);
      check.close(name, cache.read(layer, part), rows ? pickRows(expected, width, rows) : expected);
    }
  }
}

function generateOptions({ gen = {}, tokens }: Case): GenerateOptions {
  const { eos_token_id: eos = [] } = gen;
  return {
    sampling: { kind: "greedy" },
    maxNewTokens: tokens.length,
    logits: true,
    eos: typeof eos === "number" ? [eos] : eos,
    ...(gen.repetition_penalty === undefined ? {} : { repetitionPenalty: gen.repetition_penalty }),
    ...(gen.presence_penalty === undefined ? {} : { presencePenalty: gen.presence_penalty }),
    ...(gen.frequency_penalty === undefined ? {} : { frequencyPenalty: gen.frequency_penalty }),
  };
}

function extentOf({ tokens, safe_tokens, gen }: Case, channel: boolean): Extent {
  const eos = channel && gen?.eos_token_id !== undefined;
  const compared = eos ? tokens.length - 1 : Math.min(safe_tokens ?? tokens.length, tokens.length);
  return { tokens: compared, steps: compared + 1, eos };
}

async function compareGeneration(
  generation: ReturnType<Model["generate"]>,
  given: Case,
  goldens: Map<string, Golden>,
  extent: Extent,
  check: Check,
): Promise<void> {
  const ids: number[] = [];
  const steps: Float32Array[] = [];
  let reason = "none";
  for await (const event of generation) {
    if (event.type === "done") reason = event.reason.kind;
    else {
      ids.push(event.id);
      if (event.logits) steps.push(event.logits);
    }
  }
  check.same("tokens", ids.slice(0, extent.tokens), given.tokens.slice(0, extent.tokens), true);
  if (extent.eos && reason !== "eos") check.fail(`ended by ${reason}, expected eos`);
  const golden = goldens.get("step_logits");
  const [recorded = 0, vocab = 0] = golden?.shape ?? [];
  for (let step = 0; golden && step < Math.min(recorded, extent.steps); step++) {
    const logits = steps[step];
    if (!logits && extent.eos) break;
    check.close(
      `step_logits ${step}`,
      logits ?? new Float32Array(0),
      golden.data.subarray(step * vocab, (step + 1) * vocab),
    );
  }
}
