// Changes to bytes that know nothing of what the bytes mean.

const SIZES = [0, 1, 7, 8, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff];
const CHANGES = [flip, set, integer, insert, erase, repeat, splice, cut];

/** A changed copy of `bytes`, at most `limit` long; `others` are inputs to borrow from. */
export function mutateBytes(bytes, random, others, limit) {
  let out = bytes;
  for (let i = 1 + random.below(4); i > 0; i--) out = random.pick(CHANGES)(out, random, others);
  return out.slice(0, limit);
}

function flip(bytes, random) {
  const out = bytes.slice();
  if (out.length > 0) out[random.below(out.length)] ^= 1 << random.below(8);
  return out;
}

function set(bytes, random) {
  const out = bytes.slice();
  if (out.length > 0) out[random.below(out.length)] = random.oneIn(2) ? random.pick(SIZES) : random.below(256);
  return out;
}

/** Writes a telling number of two, four or eight bytes, little-endian. */
function integer(bytes, random) {
  const width = random.pick([2, 4, 8]);
  if (bytes.length < width) return bytes;
  const out = bytes.slice();
  const view = new DataView(out.buffer);
  const at = random.below(out.length - width + 1);
  const value = BigInt(random.pick(SIZES)) + BigInt(random.below(3) - 1);
  if (width === 2) view.setUint16(at, Number(BigInt.asUintN(16, value)), true);
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
  else view.setBigUint64(at, random.oneIn(4) ? value << 32n : BigInt.asUintN(64, value), true);
  return out;
}

function insert(bytes, random) {
  return spliced(bytes, random.below(bytes.length + 1), 0, randomBytes(random, 1 + random.below(8)));
}

function erase(bytes, random) {
  return spliced(bytes, random.below(bytes.length + 1), 1 + random.below(16), new Uint8Array());
}

function repeat(bytes, random) {
  const from = random.below(bytes.length + 1);
  const piece = bytes.subarray(from, from + 1 + random.below(64));
  return spliced(bytes, random.below(bytes.length + 1), 0, piece);
}

function splice(bytes, random, others) {
  const other = random.pick(others);
  const from = random.below(other.length + 1);
  const piece = other.subarray(from, from + 1 + random.below(256));
  return spliced(bytes, random.below(bytes.length + 1), random.oneIn(2) ? piece.length : 0, piece);
}

function cut(bytes, random) {
  return bytes.subarray(0, random.below(bytes.length + 1));
}

function spliced(bytes, at, removed, piece) {
  return Uint8Array.from(Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + removed)]));
}

function randomBytes(random, length) {
  return Uint8Array.from({ length }, () => random.below(256));
}

const NUMBERS = [0, -1, 1, 2, 3, 4, 8, 1.5, 255, 65536, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 53), 1e308];

/** A JSON value that differs from `value` in one or a few places; `strings` are words of the format. */
export function mutateJson(value, random, strings) {
  const copy = structuredClone(value);
  const places = [];
  const visit = (holder) => {
    for (const key of Object.keys(holder)) {
      places.push([holder, key]);
      if (typeof holder[key] === "object" && holder[key] !== null) visit(holder[key]);
    }
  };
  const root = { value: copy };
  visit(root);
  for (let i = 1 + random.below(3); i > 0; i--) {
    const [holder, key] = random.pick(places);
    const choice = random.below(6);
    if (choice === 0 && holder !== root) {
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
    } else if (choice === 1 && Array.isArray(holder)) holder.push(...holder.slice(0, 40), random.pick(NUMBERS));
    else if (choice === 2 && !Array.isArray(holder)) {
      // Not by assignment: "__proto__" must become a key of its own.
      Object.defineProperty(holder, random.pick(strings), { value: holder[key], enumerable: true, configurable: true });
    } else if (choice === 3) holder[key] = random.pick([...strings, "", [], {}, null, true]);
    else if (typeof holder[key] === "number" && random.oneIn(2)) holder[key] += random.below(9) - 4;
    else holder[key] = random.pick(NUMBERS);
  }
  return root.value;
}
