import * as v from "valibot";
import type { CachePart, CachePlan } from "../../typings/native.js";
import type { CacheFile, CachePolicy, FusedRows } from "../types.js";
import { elements } from "../weights/dtypes.js";
import { invalid, withFile } from "../weights/file.js";
import { type HeaderTensor, headerBytes, readHeader } from "../weights/safetensors.js";

/** What marks a safetensors file as a cache. */
const FORMAT = "cache-to-cache/kv-cache";
const VERSION = "1";
/** The checksum while it is not known: it is taken with these in its place. */
const UNKNOWN = "0".repeat(16);
/** Tensors begin at a multiple of this, so that rows lie on cache lines. */
const ALIGN = 64;
const WIDTHS = { F32: 4, U32: 4, BF16: 2, U8: 1 } as const;
type CacheDType = keyof typeof WIDTHS;
/** Rows of keys, and values of a row, that share a scale; see cpp/cache/quantized.h. */
export const GROUP = { key: 32, value: 32 } as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const identity = v.strictObject({ name: v.string(), fingerprint: v.string() });
const span = v.pipe(
  v.strictObject({ start: count, end: count }),
  v.check(({ start, end }) => start < end, "an empty span"),
);
const skip = v.pipe(count, v.maxValue(GROUP.key - 1));
const part = v.variant("form", [
  v.strictObject({ form: v.literal("plain"), rows: size, skip: v.literal(0) }),
  v.strictObject({ form: v.picklist(["int8", "int4"]), rows: size, skip }),
]);
const layout = v.strictObject({ layers: size, kvHeads: size, headDim: size, rows: count, parts: v.array(part) });
const fused = v.array(
  v.strictObject({
    kind: v.picklist(["c2c", "ablation", "all-in-one"]),
    fuser: v.string(),
    sharer: identity,
    rows: v.nullable(v.array(span)),
  }),
);
const room = v.strictObject({
  capacity: v.nullable(size),
  policy: v.nullable(v.looseObject({ kind: v.string() })),
});
const group = v.strictObject({ key: v.literal(GROUP.key), value: v.literal(GROUP.value) });
const checksum = v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/));
const json = <T extends v.GenericSchema>(schema: T) => v.pipe(v.string(), v.parseJson(), schema);
const metadata = v.strictObject({
  format: v.literal(FORMAT),
  version: v.literal(VERSION),
  model: json(identity),
  dtype: v.picklist(["float32", "bfloat16"]),
  layout: json(layout),
  group: json(group),
  fused: json(fused),
  room: json(room),
  checksum,
});

/** All that a header says beside its tensors. */
export interface CacheHeader {
  readonly model: { readonly name: string; readonly fingerprint: string };
  readonly dtype: "float32" | "bfloat16";
  readonly layout: {
    readonly layers: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly rows: number;
    readonly parts: readonly CachePart[];
  };
  readonly fused: readonly FusedRows[];
  /** `capacity` null: it grows. */
  readonly room: { readonly capacity: number | null; readonly policy: CachePolicy | null };
}

/** A header's bytes, where its checksum is to be written, and how many bytes the rows take. */
export function writeHeader(
  header: CacheHeader,
  plan: CachePlan,
): { readonly bytes: Uint8Array; readonly checksumAt: number; readonly taken: number } {
  const values = {
    format: FORMAT,
    version: VERSION,
    model: JSON.stringify(header.model),
    dtype: header.dtype,
    layout: JSON.stringify(header.layout),
    group: JSON.stringify(GROUP),
    fused: JSON.stringify(header.fused),
    room: JSON.stringify(header.room),
    checksum: UNKNOWN,
  };
  const tensors = plan.tensors as readonly { name: string; dtype: CacheDType; shape: readonly number[] }[];
  const bytes = headerBytes(tensors, WIDTHS, values, ALIGN);
  const taken = tensors
    .filter(({ name }) => name !== "tokens" && name !== "positions")
    .reduce((sum, { dtype, shape }) => sum + WIDTHS[dtype] * elements(shape), 0);
  return { bytes, checksumAt: findChecksum(bytes, UNKNOWN), taken };
}

/** A cache's file, read and checked as far as its header goes. */
export interface ReadCacheFile extends CacheHeader {
  readonly tensors: ReadonlyMap<string, HeaderTensor<CacheDType>>;
  readonly checksum: string;
  readonly checksumAt: number;
  /** Of the whole file. */
  readonly bytes: number;
}

/**
 * Reads a cache's header. Errors: FILE_INVALID for anything but a cache of this version whose tensors are what its layout asks for.
 */
export async function readCacheHeader(
  handle: Parameters<typeof readHeader>[0],
  path: string,
  size: number,
): Promise<ReadCacheFile> {
  const { header, bytes } = await readHeader(handle, path, size, WIDTHS).catch((error: unknown) => {
    // Element types that no cache has.
    if (error instanceof Error && "code" in error && error.code === "UNSUPPORTED") throw invalid(path, error.message);
    throw error;
  });
  const said = new Map(Object.entries(header.metadata));
  if (said.get("format") !== FORMAT) throw invalid(path, "not a KV cache");
  if (said.get("version") !== VERSION) {
    throw invalid(path, `format version ${said.get("version")}, this package reads ${VERSION}`);
  }
  const parsed = v.safeParse(metadata, header.metadata);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw invalid(path, `${v.getDotPath(issue) ?? "header"}: ${issue.message}`);
  }
  const { output } = parsed;
  const checksumAt = findChecksum(bytes, output.checksum);
  if (checksumAt < 0) throw invalid(path, "the checksum is not where it should be");
  const tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  checkTensors(path, output.layout, output.dtype === "float32" ? "F32" : "BF16", tensors);
  return {
    model: output.model,
    dtype: output.dtype,
    layout: output.layout,
    fused: output.fused,
    // Its numbers are checked where the policy is made.
    room: { capacity: output.room.capacity, policy: output.room.policy as CachePolicy | null },
    tensors,
    checksum: output.checksum,
    checksumAt,
    bytes: size,
  };
}

/** Where the one checksum's digits begin; −1 where there is not exactly one. */
function findChecksum(bytes: Uint8Array, digits: string): number {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const key = '"checksum":"';
  const at = buffer.indexOf(`${key}${digits}"`);
  return at < 0 || buffer.indexOf(key, at + 1) >= 0 || buffer.indexOf(key) !== at ? -1 : at + key.length;
}

/** Names of a part's tensors, in the order in which the native side asks for them. */
export function partTensors(index: number, { form }: Pick<CachePart, "form">): readonly string[] {
  const names = form === "plain" ? ["rows"] : ["keys", "key_scales", "values", "value_scales"];
  return names.map((name) => `${index}.${name}`);
}

type Layout = CacheHeader["layout"];

function checkTensors(
  path: string,
  { layers, kvHeads, headDim, rows, parts }: Layout,
  plain: "F32" | "BF16",
  tensors: ReadonlyMap<string, HeaderTensor<CacheDType>>,
): void {
  const total = parts.reduce((sum, part) => sum + part.rows, 0);
  if (total !== rows) throw invalid(path, `its parts have ${total} rows, ${rows} are said`);
  const wanted = new Map<string, { readonly dtype: CacheDType; readonly shape: readonly number[] }>();
  for (const [i, part] of parts.entries()) {
    const width = kvHeads * headDim;
    const stored = part.rows + part.skip;
    const groups = Math.ceil(width / GROUP.value);
    const bytes = part.form === "int8" ? width : (groups * GROUP.value) / 2;
    const shapes =
      part.form === "plain"
        ? ([[plain, [layers, 2, part.rows, kvHeads, headDim]]] as const)
        : ([
            ["U8", [layers, stored, bytes]],
            ["BF16", [layers, Math.ceil(stored / GROUP.key), 2, width]],
            ["U8", [layers, stored, bytes]],
            ["BF16", [layers, stored, 2, groups]],
          ] as const);
    for (const [j, name] of partTensors(i, part).entries()) {
      const [dtype, shape] = shapes[j] ?? [plain, []];
      wanted.set(name, { dtype, shape });
    }
  }
  for (const name of ["tokens", "positions"]) wanted.set(name, { dtype: "U32", shape: [rows] });
  for (const [name, { dtype, shape }] of wanted) {
    const found = tensors.get(name);
    if (found?.dtype !== dtype || found.shape.length !== shape.length || found.shape.some((n, i) => n !== shape[i])) {
      throw invalid(path, `tensor ${name} is not ${dtype} [${shape.join(", ")}]`);
    }
  }
  if (tensors.size !== wanted.size) throw invalid(path, "it holds other tensors");
}

/**
 * What a cache's file says of itself, without its model: its header is read and checked, its rows are not (`loadCache` does that).
 * FILE_INVALID where it is no such file, IO_FAILED.
 */
export async function inspectCache(path: string): Promise<CacheFile> {
  const read = await withFile(path, (handle, size) => readCacheHeader(handle, path, size));
  const { model, dtype, layout, fused, room, checksum, bytes } = read;
  const { layers, kvHeads, headDim, rows, parts } = layout;
  return {
    model,
    dtype,
    shape: { layers, kvHeads, headDim },
    length: rows,
    parts: parts.map(({ form, rows: length }) => ({ form, rows: length })),
    fused,
    capacity: room.capacity,
    policy: room.policy,
    checksum,
    bytes,
  };
}
