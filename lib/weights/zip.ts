import type { FileHandle } from "node:fs/promises";
import { crc32, inflateRawSync } from "node:zlib";
import { C2CError } from "../errors.js";
import { invalid, readRange } from "./file.js";

const END_SIZE = 22;
const MAX_COMMENT = 0xffff;
const FULL_32 = 0xffffffff;
/** Bytes of a member that is read into memory: a pickled state_dict's names and shapes, not its tensors. */
const MAX_MEMBER = 100_000_000;
const STORED = 0;
const DEFLATED = 8;

/** One member of a zip archive; its (perhaps compressed) bytes are [begin, begin + packed) of the archive. */
export interface ZipEntry {
  readonly name: string;
  readonly stored: boolean;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  readonly begin: number;
}

/** The members of a zip archive, by name. Errors: FILE_INVALID; UNSUPPORTED for zip64, encryption and unusual compression. */
export async function readZip(handle: FileHandle, path: string, fileSize: number): Promise<Map<string, ZipEntry>> {
  const tailBegin = Math.max(0, fileSize - END_SIZE - MAX_COMMENT);
  const tail = viewOf(await readRange(handle, path, tailBegin, fileSize));
  let end = tail.byteLength - END_SIZE;
  while (
    end >= 0 &&
    !(tail.getUint32(end, true) === 0x06054b50 && end + END_SIZE + tail.getUint16(end + 20, true) === tail.byteLength)
  )
    end--;
  if (end < 0) throw invalid(path, "not a zip archive, or cut short");
  const count = tail.getUint16(end + 10, true);
  const size = tail.getUint32(end + 12, true);
  const begin = tail.getUint32(end + 16, true);
  if (count === 0xffff || size === FULL_32 || begin === FULL_32) throw unsupported(path, "zip64 archives");
  if (begin + size > tailBegin + end) throw invalid(path, "the zip directory lies outside the file");
  const directory = await readRange(handle, path, begin, begin + size);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    const { entry, next } = await readEntry(handle, path, directory, at, begin);
    if (entries.has(entry.name)) throw invalid(path, `zip member ${entry.name} is there twice`);
    entries.set(entry.name, entry);
    at = next;
  }
  return entries;
}

async function readEntry(
  handle: FileHandle,
  path: string,
  directory: Uint8Array,
  at: number,
  limit: number,
): Promise<{ entry: ZipEntry; next: number }> {
  const view = viewOf(directory);
  if (at + 46 > view.byteLength || view.getUint32(at, true) !== 0x02014b50)
    throw invalid(path, "the zip directory is broken");
  const nameEnd = at + 46 + view.getUint16(at + 28, true);
  const next = nameEnd + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  if (next > view.byteLength) throw invalid(path, "the zip directory is cut short");
  const name = new TextDecoder().decode(directory.subarray(at + 46, nameEnd));
  const method = view.getUint16(at + 10, true);
  if (view.getUint16(at + 8, true) & 1) throw unsupported(path, "encrypted zip members");
  if (method !== STORED && method !== DEFLATED) throw unsupported(path, `zip compression ${method}`);
  const packed = view.getUint32(at + 20, true);
  const size = view.getUint32(at + 24, true);
  const header = view.getUint32(at + 42, true);
  if (packed === FULL_32 || size === FULL_32 || header === FULL_32) throw unsupported(path, "zip64 members");
  if (method === STORED && packed !== size)
    throw invalid(path, `zip member ${name} is stored in ${packed} bytes but has ${size}`);
  if (header + 30 > limit) throw invalid(path, `zip member ${name} lies outside the file`);
  const local = viewOf(await readRange(handle, path, header, header + 30));
  if (local.getUint32(0, true) !== 0x04034b50) throw invalid(path, `zip member ${name} has no header`);
  const begin = header + 30 + local.getUint16(26, true) + local.getUint16(28, true);
  if (begin + packed > limit) throw invalid(path, `zip member ${name} lies outside the file`);
  return { entry: { name, stored: method === STORED, crc: view.getUint32(at + 16, true), packed, size, begin }, next };
}

/** A member's content, inflated and checked against its checksum. Errors: FILE_INVALID, also past MAX_MEMBER bytes. */
export async function readMember(handle: FileHandle, path: string, entry: ZipEntry): Promise<Uint8Array> {
  if (entry.size > MAX_MEMBER) throw invalid(path, `zip member ${entry.name} is larger than ${MAX_MEMBER} bytes`);
  const packed = await readRange(handle, path, entry.begin, entry.begin + entry.packed);
  const content = entry.stored ? packed : inflate(path, entry, packed);
  if (content.length !== entry.size || crc32(content) !== entry.crc)
    throw invalid(path, `zip member ${entry.name} is damaged`);
  return content;
}

function inflate(path: string, entry: ZipEntry, packed: Uint8Array): Uint8Array {
  try {
    return inflateRawSync(packed, { maxOutputLength: Math.max(1, entry.size) });
  } catch {
    throw invalid(path, `zip member ${entry.name} is damaged`);
  }
}

/** A member to be written, or a function that fetches its content when its turn comes. */
export interface ZipMember {
  readonly name: string;
  readonly data: Uint8Array | (() => Promise<Uint8Array>);
}

/** The bytes of a zip archive with stored members. Errors: UNSUPPORTED past 4 GiB. */
export async function* zipChunks(path: string, members: readonly ZipMember[]): AsyncGenerator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const member of members) {
    const data = typeof member.data === "function" ? await member.data() : member.data;
    const name = new TextEncoder().encode(member.name);
    if (at + 30 + name.length + data.length >= FULL_32) throw unsupported(path, "zip archives past 4 GiB");
    const fields = { crc: crc32(data), size: data.length, name: name.length };
    const local = new Uint8Array(30 + name.length);
    writeFields(viewOf(local), 0x04034b50, 4, fields);
    local.set(name, 30);
    const central = new Uint8Array(46 + name.length);
    writeFields(viewOf(central), 0x02014b50, 6, fields);
    viewOf(central).setUint32(42, at, true);
    central.set(name, 46);
    directory.push(central);
    at += local.length + data.length;
    yield local;
    yield data;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  yield* directory;
  const end = viewOf(new Uint8Array(END_SIZE));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, members.length, true);
  end.setUint16(10, members.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, at, true);
  yield new Uint8Array(end.buffer);
}

/** The fields that local and central headers share; `at` is where "version needed" stands. The date is 1 January 1980. */
function writeFields(
  view: DataView,
  signature: number,
  at: number,
  fields: { crc: number; size: number; name: number },
): void {
  view.setUint32(0, signature, true);
  view.setUint16(at, 20, true);
  if (at === 6) view.setUint16(4, 20, true);
  view.setUint16(at + 2, 0x0800, true);
  view.setUint16(at + 8, 0x21, true);
  view.setUint32(at + 10, fields.crc, true);
  view.setUint32(at + 14, fields.size, true);
  view.setUint32(at + 18, fields.size, true);
  view.setUint16(at + 22, fields.name, true);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function unsupported(path: string, what: string): C2CError<"UNSUPPORTED"> {
  return new C2CError("UNSUPPORTED", { what, supported: ["plain zip archives"] }, `${path}: ${what} are not supported`);
}
