// What an object that nvcc made has for GPUs.

const MAGIC = 0xba55ed50;
const KINDS = { 1: "ptx", 2: "elf" };

/**
 * [{ kind, arch }] of an object file's bytes, in its order: "elf" is machine code of an architecture (90 for sm_90), "ptx" is what
 * a driver makes it of. Empty where there is none.
 */
export function architectures(bytes) {
  const found = [];
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(MAGIC);
  for (let at = bytes.indexOf(magic); at >= 0; at = bytes.indexOf(magic, at + 4)) {
    if (at + 16 > bytes.length) break;
    const first = at + bytes.readUInt16LE(at + 6);
    const end = Math.min(first + Number(bytes.readBigUInt64LE(at + 8)), bytes.length);
    for (let entry = first; entry + 32 <= end; ) {
      const kind = KINDS[bytes.readUInt16LE(entry)];
      const size = bytes.readUInt32LE(entry + 4) + Number(bytes.readBigUInt64LE(entry + 8));
      if (kind === undefined || size === 0) break;
      found.push({ kind, arch: bytes.readUInt32LE(entry + 28) });
      entry += size;
    }
  }
  return found;
}
