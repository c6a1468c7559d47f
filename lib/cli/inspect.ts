import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { inspectCache } from "../cache/file.js";
import { readFuserFolder } from "../fuser/folder.js";
import { C2CError } from "../index.js";
import { readModelConfig } from "../model/config.js";
import { readTensor } from "../weights/read.js";
import { resolveSource } from "../weights/source.js";
import { bar } from "./progress.js";
import { parseSource, withProgress } from "./sources.js";

/** A fuser's layer: gate logits, open when above 0; null where the projector has none. */
interface GateLine {
  readonly receiverLayer: number;
  readonly sharerLayer: number;
  readonly key: number | null;
  readonly value: number | null;
}

/** `inspect`: what a model's or a fuser's folder holds, read from its headers. */
export function addInspect(program: Command): void {
  program
    .command("inspect")
    .description("show a model's shape and sizes, a fuser's layers and gates, or what a cache's file holds")
    .argument("<source>", "a folder or owner/name[@revision][:folder], or a cache's file")
    .option("--json", "print one JSON object")
    .action(async (text: string, { json }: { readonly json?: boolean }) => {
      const found = (await inspectFile(text)) ?? (await inspectFuser(text)) ?? (await inspectModel(text));
      console.log(json ? JSON.stringify(found) : linesOf(found).join("\n"));
    });
}

/** Null where the source is no file. */
async function inspectFile(path: string) {
  const found = await stat(path).catch(() => null);
  return found?.isFile() ? ({ kind: "cache", ...(await inspectCache(path)) } as const) : null;
}

function linesOf(found: CacheReport | FuserReport | ModelReport): readonly string[] {
  if (found.kind === "cache") return cacheLines(found);
  return found.kind === "model" ? modelLines(found) : fuserLines(found);
}

async function inspectModel(text: string) {
  const folder = await withProgress(text, (onProgress) => resolveSource(parseSource(text), "model", { onProgress }));
  const { shape, dtype, eos, spec, table } = await readModelConfig(folder);
  const { tensors, files } = table;
  const size = sizes(tensors);
  const windows = spec.layers.filter(({ window }) => window > 0).length;
  return {
    kind: "model",
    ...shape,
    dtype,
    ...size,
    tensors: tensors.length,
    files: files.length,
    tied: spec.tied,
    windows,
    eos,
  } as const;
}

/** Null where the source is no fuser. */
async function inspectFuser(text: string) {
  const source = parseSource(text);
  let folder: string;
  try {
    folder = await withProgress(text, (onProgress) => resolveSource(source, "fuser", { onProgress }));
  } catch (error) {
    if (source.kind === "hub" && source.folder === undefined && error instanceof C2CError) return null;
    throw error;
  }
  const fuser = await readFuserFolder(folder).catch((error: unknown) => {
    if (error instanceof C2CError) return null;
    throw error;
  });
  if (!fuser) return null;
  const gates: GateLine[] = [];
  for (const { receiverLayer, sharerLayer, prefix } of fuser.projectors) {
    const gate = async (names: readonly string[]): Promise<number | null> => {
      const name = names
        .map((key) => prefix + key)
        .find((key) => fuser.table.tensors.some((tensor) => tensor.name === key));
      return name === undefined ? null : await scalar(await readTensor(fuser.table, name));
    };
    gates.push({
      receiverLayer,
      sharerLayer,
      key: await gate(["key_gate_logit", "gate_logit"]),
      value: await gate(["value_gate_logit", "gate_logit"]),
    });
  }
  const { kind, align, receiver, sharer, table, projectors } = fuser;
  return {
    kind: "fuser",
    projector: kind,
    align,
    receiver,
    sharer,
    ...sizes(table.tensors),
    options: projectors[0]?.options ?? {},
    gates,
  } as const;
}

type CacheReport = NonNullable<Awaited<ReturnType<typeof inspectFile>>>;
type ModelReport = Awaited<ReturnType<typeof inspectModel>>;
type FuserReport = NonNullable<Awaited<ReturnType<typeof inspectFuser>>>;

function cacheLines({ model, dtype, shape, length, parts, fused, capacity, policy, ...file }: CacheReport) {
  const spans = (rows: (typeof fused)[number]["rows"]): string =>
    rows === null ? "moved since" : rows.map(({ start, end }) => `${start}–${end}`).join(", ");
  return [
    `cache of ${model.name}, ${length} rows in ${dtype}, ${megabytes(file.bytes)}`,
    `model       ${model.fingerprint}`,
    `layers      ${shape.layers}, ${shape.kvHeads} heads, ${shape.headDim} wide`,
    ...parts.map(({ form, rows }) => `rows        ${rows} ${form}`),
    ...fused.map(
      ({ kind, fuser, sharer, rows }) => `fused       ${kind} ${fuser} from ${sharer.name}: rows ${spans(rows)}`,
    ),
    `room        ${capacity === null ? "grows" : capacity}${policy === null ? "" : `, ${JSON.stringify(policy)}`}`,
    `checksum    ${file.checksum}`,
  ];
}

function modelLines(model: ModelReport): readonly string[] {
  return [
    `${model.family}, ${model.dtype}, ${millions(model.parameters)} parameters, ${megabytes(model.bytes)} in ${model.files} file(s)`,
    `layers      ${model.layers}${model.windows > 0 ? ` (${model.windows} with a sliding window)` : ""}`,
    `hidden      ${model.hidden}`,
    `heads       ${model.heads}, ${model.kvHeads} of keys and values, ${model.headDim} wide`,
    `vocabulary  ${model.vocab}${model.tied ? ", embeddings shared with the head" : ""}`,
    `context     ${model.context}`,
    `end tokens  ${model.eos.join(", ")}`,
  ];
}

function fuserLines(fuser: FuserReport): readonly string[] {
  const gate = (logit: number | null): string =>
    logit === null
      ? "no gate".padEnd(26)
      : `${bar(1 / (1 + Math.exp(-logit)), 10)} ${logit > 0 ? "open  " : "closed"} ${logit.toFixed(3).padStart(7)}`;
  return [
    `fuser (${fuser.projector}), ${millions(fuser.parameters)} parameters, ${megabytes(fuser.bytes)}, aligned by "${fuser.align}"`,
    `receiver ${fuser.receiver.kvHeads} × ${fuser.receiver.headDim}, sharer ${fuser.sharer.kvHeads} × ${fuser.sharer.headDim}`,
    "layer ← sharer's   key gate                    value gate",
    ...fuser.gates.map(
      ({ receiverLayer, sharerLayer, key, value }) =>
        `${String(receiverLayer).padStart(5)} ← ${String(sharerLayer).padEnd(8)}   ${gate(key)}  ${gate(value)}`,
    ),
  ];
}

function sizes(
  tensors: readonly { readonly shape: readonly number[]; readonly begin: number; readonly end: number }[],
) {
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  return { parameters, bytes: tensors.reduce((sum, { begin, end }) => sum + end - begin, 0) };
}

function scalar({ dtype, data }: Awaited<ReturnType<typeof readTensor>>): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (dtype === "F64") return view.getFloat64(0, true);
  if (dtype === "F32") return view.getFloat32(0, true);
  if (dtype === "BF16") {
    const wide = new DataView(new ArrayBuffer(4));
    wide.setUint32(0, view.getUint16(0, true) << 16);
    return wide.getFloat32(0);
  }
  const bits = view.getUint16(0, true);
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

const millions = (count: number): string => `${(count / 1e6).toFixed(2)} M`;
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
