import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Message, Sample } from "../index.js";
import { trainingSession } from "../testing.js";
import { linearSchedule } from "../train/schedule.js";
import { readSafetensors } from "../weights/safetensors.js";
import { type CaseResult, type Check, type Golden, readGoldens, readJson, runCase } from "./golden.js";
import type { Loaded } from "./models.js";

interface TrainCase {
  readonly name: string;
  readonly sharer: string;
  readonly use_gumbel: boolean;
  readonly grad_accum: number;
  readonly aligned: boolean;
  readonly strategy?: "first" | "longest";
  readonly conversations: readonly (readonly Message[])[];
  readonly lr: number;
  readonly weight_decay: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly warmup_steps: number;
  readonly total_steps: number;
  readonly max_grad_norm: number;
  readonly anneal_steps: number;
  readonly mapping: "last_aligned" | "k_nearest";
  readonly projector: Readonly<Record<string, number | boolean | string>> & { readonly type?: string };
  readonly steps: readonly {
    readonly step: number;
    readonly micro: readonly { readonly samples: readonly number[]; readonly loss: number; readonly n_noise: number }[];
    readonly grad_norm: number;
    readonly lr_used: number;
    readonly temperature_used: number;
  }[];
}

const RELATIVE = 1e-4;
/** Below this gradient Adam amplifies rounding, and final weights are not compared. */
const SMALL_GRADIENT = 1e-5;

/** Runs train.json: three optimiser steps with recorded noise from recorded weights. A folder without it has no such cases. */
export async function runTrain(folder: string, loaded: Loaded, report: (result: CaseResult) => void): Promise<void> {
  const file = join(folder, "train.json");
  if (!existsSync(file)) return;
  for (const given of await readJson<readonly TrainCase[]>(file))
    report(await runCase("train.json", given.name, (check) => runTraining(folder, given, loaded, check)));
}

async function runTraining(folder: string, given: TrainCase, loaded: Loaded, check: Check): Promise<void> {
  const file = join(folder, `train_${given.name}.safetensors`);
  const goldens = await readGoldens(file);
  const tensors = (await readSafetensors(file)).tensors.filter(({ name }) => name.startsWith("init/"));
  const { type: kind = "C2CProjector", ...options } = given.projector;
  await using session = await trainingSession(
    { receiver: await loaded.model("receiver"), sharer: await loaded.model(given.sharer) },
    {
      kind,
      options,
      layerMap: given.mapping === "k_nearest" ? "nearest" : "last-aligned",
      align: given.aligned ? (given.strategy ?? "first") : "same",
      gumbel: given.use_gumbel,
      betas: given.betas,
      eps: given.eps,
      weightDecay: given.weight_decay,
      clipNorm: given.max_grad_norm,
    },
    { table: { files: [file], tensors }, prefix: (projector) => `init/${projector}/` },
  );
  // Later steps of aligned batches lose labels in the reference.
  for (const { step, micro, grad_norm, lr_used, temperature_used } of given.steps.slice(
    0,
    given.aligned ? 1 : undefined,
  )) {
    for (const [i, { samples, loss }] of micro.entries()) {
      const batch = samples.map((index): Sample => ({ messages: given.conversations[index] ?? [] }));
      const noise = await drawsOf(goldens, `noise/${step}/${i}/`, await session.fusedRows(batch));
      const actual = await session.accumulate(batch, {
        temperature: temperature_used,
        scale: 1 / given.grad_accum,
        ...(noise.length > 0 ? { noise } : {}),
      });
      check.relative(`loss of step ${step}.${i}`, actual, loss, RELATIVE);
    }
    if (step === 0) await compare(goldens, "grad0/", (name) => session.gradient(name), check);
    const rate = linearSchedule(step, given.lr, given.warmup_steps, given.total_steps);
    check.relative(`learning rate of step ${step}`, rate, lr_used, RELATIVE);
    check.relative(`gradient norm of step ${step}`, await session.update(rate), grad_norm, RELATIVE);
  }
  if (!given.aligned) await compare(goldens, "final/", (name) => session.weight(name), check, "grad0/");
}

/** Compares tensors PREFIX/projector/key; with `where`, only values whose golden of that prefix is not small. */
async function compare(
  goldens: Map<string, Golden>,
  prefix: string,
  read: (name: string) => Promise<Float32Array>,
  check: Check,
  where?: string,
): Promise<void> {
  for (const [name, { data }] of goldens) {
    const [, projector, key] = /^[^/]+\/(\d+)\/(.+)$/.exec(name.startsWith(prefix) ? name : "") ?? [];
    if (projector === undefined || key === undefined || key === "gate_temperature") continue;
    const actual = await read(`projector_${projector}.${key}`);
    const gate = where === undefined ? undefined : goldens.get(`${where}${projector}/${key}`)?.data;
    const compared = actual.map((value, i) =>
      gate && !(Math.abs(gate[i] ?? 0) > SMALL_GRADIENT) ? (data[i] ?? value) : value,
    );
    check.close(name, compared, data);
  }
}

/**
 * Recorded draws [batch, heads, longest, 1], in the order section, layer, key and value, as [rows, heads] of the rows that there are;
 * `rows`: fused rows of each sample, section by section.
 */
async function drawsOf(
  goldens: Map<string, Golden>,
  prefix: string,
  rows: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const recorded: Golden[] = [];
  for (let j = 0; ; j++) {
    const golden = goldens.get(`${prefix}${j}`);
    if (!golden) break;
    recorded.push(golden);
  }
  const sections = Math.max(...rows.map(({ length }) => length));
  return recorded.map(({ shape, data }, j) => {
    const [, heads = 1, longest = 1] = shape;
    const section = Math.floor((j * sections) / recorded.length);
    const out: number[] = [];
    for (const [b, counts] of rows.entries()) {
      for (let row = 0; row < (counts[section] ?? 0); row++) {
        for (let head = 0; head < heads; head++) out.push(data[(b * heads + head) * longest + row] ?? 0);
      }
    }
    return Float32Array.from(out);
  });
}
