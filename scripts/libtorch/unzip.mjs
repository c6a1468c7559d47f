// Unpacks chosen entries of a zip file (stored or deflated, zip64), so that nobody needs unzip or Python for it.
import { createReadStream, createWriteStream, mkdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";
import { Failure } from "../process.mjs";

const END = 0x06054b50;
const END64 = 0x06064b50;
const END64_LOCATOR = 0x07064b50;
const ENTRY = 0x02014b50;
const END_BYTES = 22;
const LARGEST_COMMENT = 65_535;

/**
 * Writes the entries for which `place(name)` gives a path (relative to `folder`) and checks each one's CRC-32.
 * Returns how many there were. Throws Failure where the archive is cut short or damaged.
 */
export async function unzip(archive, folder, place) {
  const handle = await open(archive);
  try {
    let count = 0;
    for (const entry of await entries(handle, archive)) {
      const path = entry.name.endsWith("/") ? undefined : place(entry.name);
      if (path === undefined) continue;
      if (path.startsWith("/") || path.split(/[\\/]/).includes("..")) throw new Failure(`${archive}: bad name ${path}`);
      await extract(handle, archive, entry, join(folder, path));
      count++;
    }
    return count;
  } finally {
    await handle.close();
  }
}

async function entries(handle, archive) {
  const { size } = await handle.stat();
  const tail = await read(
    handle,
    Math.max(0, size - END_BYTES - LARGEST_COMMENT),
    Math.min(size, END_BYTES + LARGEST_COMMENT),
  );
  let at = tail.length - END_BYTES;
  while (at >= 0 && tail.readUInt32LE(at) !== END) at--;
  if (at < 0) throw new Failure(`${archive} is not a whole zip file`);
  let offset = tail.readUInt32LE(at + 16);
  let length = tail.readUInt32LE(at + 12);
  if (at >= 20 && tail.readUInt32LE(at - 20) === END64_LOCATOR) {
    const end = await read(handle, Number(tail.readBigUInt64LE(at - 12)), 56);
    if (end.readUInt32LE(0) !== END64) throw new Failure(`${archive} is not a whole zip file`);
    length = Number(end.readBigUInt64LE(40));
    offset = Number(end.readBigUInt64LE(48));
  }
  const directory = await read(handle, offset, length);
  const found = [];
  for (let p = 0; p + 46 <= length && directory.readUInt32LE(p) === ENTRY; ) {
    const name = directory.readUInt16LE(p + 28);
    const extra = directory.readUInt16LE(p + 30);
    const text = directory.toString("utf8", p + 46, p + 46 + name);
    found.push({
      name: text,
      method: directory.readUInt16LE(p + 10),
      crc: directory.readUInt32LE(p + 16),
      mode: (directory.readUInt32LE(p + 38) >>> 16) & 0o777,
      ...sizes(directory, p, directory.subarray(p + 46 + name, p + 46 + name + extra)),
    });
    p += 46 + name + extra + directory.readUInt16LE(p + 32);
  }
  return found;
}

/** Sizes and offset of an entry, from the zip64 field where the short ones overflow. */
function sizes(directory, p, extra) {
  const short = [directory.readUInt32LE(p + 24), directory.readUInt32LE(p + 20), directory.readUInt32LE(p + 42)];
  let long = Buffer.alloc(0);
  for (let q = 0; q + 4 <= extra.length; q += 4 + extra.readUInt16LE(q + 2)) {
    if (extra.readUInt16LE(q) === 1) long = extra.subarray(q + 4, q + 4 + extra.readUInt16LE(q + 2));
  }
  let at = 0;
  const [bytes, packed, offset] = short.map((value) => {
    if (value !== 0xffffffff) return value;
    at += 8;
    return Number(long.readBigUInt64LE(at - 8));
  });
  return { bytes, packed, offset };
}

async function extract(handle, archive, entry, path) {
  const local = await read(handle, entry.offset, 30);
  const start = entry.offset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
  if (entry.method !== 0 && entry.method !== 8)
    throw new Failure(`${archive}: ${entry.name} is packed in an unknown way`);
  mkdirSync(dirname(path), { recursive: true });
  let crc = 0;
  let bytes = 0;
  const check = async function* (source) {
    for await (const chunk of source) {
      crc = crc32(chunk, crc);
      bytes += chunk.length;
      yield chunk;
    }
  };
  const source = entry.packed === 0 ? [] : createReadStream(archive, { start, end: start + entry.packed - 1 });
  const unpack = entry.method === 8 && entry.packed > 0 ? [createInflateRaw()] : [];
  try {
    await pipeline(source, ...unpack, check, createWriteStream(path, { mode: entry.mode || 0o644 }));
  } catch (error) {
    if (error.code === "ENOSPC")
      throw new Failure(`The disk is full: ${path} could not be unpacked. Free some space, then run this again.`);
    throw new Failure(`${archive}: ${entry.name} cannot be unpacked: ${error.message}`);
  }
  if (crc !== entry.crc || bytes !== entry.bytes) throw new Failure(`${archive}: ${entry.name} is damaged`);
}

async function read(handle, position, length) {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  if (bytesRead !== length) throw new Failure("the zip file is cut short");
  return buffer;
}
