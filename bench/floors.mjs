// The least time that a piece of work can take on this machine: the larger of its FLOPs at the best packed product rate
// (below 256 rows: at that row count; from 256 on: at any such count) and its bytes at the read bandwidth.
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { median } from "./median.mjs";
import { steady } from "./runs.mjs";

/** The program that measures the machine. */
export const program = fileURLToPath(new URL("../build/bench/floor", import.meta.url));

function checkProgram() {
  if (!existsSync(program)) throw new Error("build/bench/floor is missing: run `node scripts/setup.mjs --bench`");
}

/** Measures the machine once: about 15 s. */
export function measure(threads) {
  checkProgram();
  return JSON.parse(execFileSync(program, [String(threads)], { encoding: "utf8" }));
}

/**
 * Asks for the read bandwidth of the moment, GB/s, about 60 ms each: on a machine that is shared it can double or halve
 * within seconds, and a time that waits for memory says nothing without it.
 */
export async function openReader(threads) {
  checkProgram();
  // Its threads must not spin beside the work that is measured.
  const env = { ...process.env, OMP_WAIT_POLICY: "passive" };
  const child = spawn(program, [String(threads), "reads"], { env, stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    child.stdin.write("\n");
    const { value, done } = await lines.next();
    if (done) throw new Error("build/bench/floor ended");
    return Number(value);
  };
  await read();
  return read;
}

/**
 * Several measurements as one: medians, since they stand beside medians of times. Each measurement is the best of several
 * ways to read and to multiply; `readRange` says how far the machine itself went from one to the next.
 */
export function join(measurements) {
  const [first] = measurements;
  const reads = measurements.map(({ readGBs }) => readGBs);
  return {
    ...first,
    readGBs: median(reads),
    readRange: [Math.min(...reads), Math.max(...reads)],
    products: first.products.map((p, i) => ({
      ...p,
      gflops: median(measurements.map(({ products }) => products[i].gflops)),
    })),
  };
}

/**
 * A row's floor and the times over it, from runs [{ ms, reads }] that each have the bandwidth before and after them: the median of
 * the steady ones' times over their own floors, and the floor that `ms` has by that. Rows without such runs are held against the
 * bandwidth of the whole comparison.
 */
export function against(floorOf, machine, ms, all) {
  const runs = steady(all);
  if (runs.length === 0 || floorOf(machine) === null) {
    const floorMs = floorOf(machine);
    return { floorMs, overFloor: floorMs === null ? null : ms / floorMs };
  }
  const overFloor = median(runs.map((run) => run.ms / floorOf({ ...machine, readGBs: run.readGBs })));
  const reads = runs.map(({ readGBs }) => readGBs);
  return {
    floorMs: ms / overFloor,
    overFloor,
    readGBs: { median: median(reads), min: Math.min(...reads), max: Math.max(...reads), runs: runs.length },
  };
}

/**
 * A peer's time ÷ ours at the same bandwidth, from steady runs: each of its runs against those of ours that had about as much of it;
 * { level: the median, levelRuns: how many of its runs that is of }, or level null where no two runs are alike.
 */
export function alike(ours, theirs) {
  const own = steady(ours);
  const ratios = steady(theirs).flatMap((run) => {
    const same = own.filter(({ readGBs }) => Math.abs(readGBs / run.readGBs - 1) < 0.15);
    return same.length === 0 ? [] : [run.ms / median(same.map(({ ms }) => ms))];
  });
  return { level: ratios.length === 0 ? null : median(ratios), levelRuns: ratios.length };
}

const SIZE = { float32: 4, bfloat16: 2, int8: 1, int4: 0.5 };

/** GFLOP/s at a row count; between measured counts the rate of the next larger one, so that the floor stays a floor. */
function rate(machine, dtype, rows) {
  const points = machine.products.filter((p) => p.dtype === dtype);
  const from = rows >= 256 ? points.filter((p) => p.rows >= 256) : points.filter((p) => p.rows >= rows).slice(0, 1);
  return Math.max(...from.map((p) => p.gflops));
}

function ms(machine, dtype, rows, flops, bytes) {
  const products = dtype in { int8: 1, int4: 1 } ? "bfloat16" : dtype;
  return Math.max(flops / rate(machine, products, rows) / 1e6, bytes / machine.readGBs / 1e6);
}

const heads = (c) => ({ d: c.head_dim ?? c.hidden_size / c.num_attention_heads, kv: c.num_key_value_heads });

function layerWeights(c) {
  const { d, kv } = heads(c);
  return c.hidden_size * d * (2 * c.num_attention_heads + 2 * kv) + 3 * c.hidden_size * c.intermediate_size;
}

/** Work of a pure prefill of `n` tokens: the last layer stops behind its keys and values. */
function prefillWork(c, dtype, n) {
  const { d, kv } = heads(c);
  const layers = c.num_hidden_layers - 1;
  const last = 2 * c.hidden_size * kv * d;
  const attention = layers * 4 * c.num_attention_heads * d * ((n * (n + 1)) / 2);
  return {
    flops: 2 * n * (layers * layerWeights(c) + last) + attention,
    bytes: (layers * layerWeights(c) + last) * SIZE[dtype],
  };
}

/** Work of one decoded token behind `context` rows; quantised weights carry a float16 scale for 32 (int4) or 64 values. */
function decodeWork(c, dtype, context, batch = 1) {
  const { d, kv } = heads(c);
  const weights = c.num_hidden_layers * layerWeights(c) + c.vocab_size * c.hidden_size;
  const cache = c.num_hidden_layers * 2 * kv * d * context * Math.max(SIZE[dtype], 2) * batch;
  return { flops: 2 * weights * batch, bytes: weights * SIZE[dtype] + cache };
}

/**
 * Work of fusing `n` rows through `open` gates (a key and a value gate for each fused layer). Of the weight's block only what
 * has to be computed: its second map and the map to heads have nothing between them that is no line, and are one.
 */
function fusionWork(fuser, dtype, n, open) {
  const { sharer: s, receiver: t, hidden: c, intermediate: i, layers } = fuser;
  const weights = c * (s + t) + 2 * i * c + c * c + 2 * fuser.receiverHeads * c + (layers - 2) * 2 * i * c + t * c;
  return { flops: 2 * n * weights * open, bytes: open * (weights + n * (s + 2 * t)) * SIZE[dtype] };
}

export const floors = {
  prefill: (machine, config, dtype, n) => {
    const { flops, bytes } = prefillWork(config, dtype, n);
    return ms(machine, dtype, n, flops, bytes);
  },
  decode: (machine, config, dtype, context, batch) => {
    const { flops, bytes } = decodeWork(config, dtype, context, batch);
    // One row: every weight is read for two operations, so the bandwidth is the limit, whatever a library's one-row product reaches.
    return batch === undefined ? floors.read(machine, bytes) : ms(machine, dtype, batch, flops, bytes);
  },
  fusion: (machine, fuser, dtype, n, open) => {
    if (open === 0) return null;
    const { flops, bytes } = fusionWork(fuser, dtype, n, open);
    return ms(machine, dtype, n, flops, bytes);
  },
  /** Bytes that must be read, at the read bandwidth. */
  read: (machine, bytes) => bytes / machine.readGBs / 1e6,
};
