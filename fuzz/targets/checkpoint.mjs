// The reader of PyTorch checkpoints, zip and pickle together: what it accepts describes bytes that the file has.
import { unzipSync, zipSync } from "fflate";
import { readCheckpoint } from "../../dist/weights/checkpoint.js";
import { WIDTHS } from "../../dist/weights/dtypes.js";
import { expect } from "../expect.mjs";
import { mutateBytes } from "../mutate.mjs";
import * as pickle from "./pickle.mjs";

export const codes = ["FILE_INVALID", "UNSUPPORTED"];
export const watched = ["dist/weights/checkpoint.js", "dist/weights/zip.js", "dist/weights/pickle.js"];
const NAMES = ["a/data.pkl", "b/data.pkl", "a/byteorder", "a/data/0", "a/data/1", "a/version", "", "data.pkl"];

function archive(members, level = 0) {
  return Uint8Array.from(zipSync(members, { level, mtime: "1980-01-02" }));
}

export function seeds() {
  const little = Buffer.from("little");
  return pickle.seeds().flatMap((data) => {
    const members = { "a/data.pkl": data, "a/byteorder": little, "a/data/0": new Uint8Array(24), "a/version": little };
    return [archive(members), archive(members, 6)];
  });
}

/** What an archive without a comment says; an archive that lies about it is no base for whole members. */
function memberCount(bytes) {
  return bytes.length < 22 ? 0 : new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 12).getUint16(0, true);
}

export function mutate(bytes, random, others, limit) {
  if (random.oneIn(2) || memberCount(bytes) > 16) return mutateBytes(bytes, random, others, limit);
  let members;
  try {
    members = unzipSync(bytes, { filter: ({ originalSize }) => originalSize < 1 << 16 });
  } catch {
    return mutateBytes(bytes, random, others, limit);
  }
  const name = random.pick([...Object.keys(members), ...NAMES]);
  const data = members[name] ?? new Uint8Array(random.below(64));
  if (random.oneIn(4)) delete members[name];
  else if (random.oneIn(3)) members[name] = new Uint8Array(random.pick([0, 4, 8, 12, 24, 48]));
  else members[name] = pickle.mutate(data, random, [data], limit);
  return archive(members, random.oneIn(4) ? 6 : 0);
}

export async function run(bytes, path) {
  for (const { name, dtype, shape, file, begin, end } of await readCheckpoint(path)) {
    expect(typeof name === "string" && file === 0, "a name and a file");
    expect(begin >= 0 && end >= begin && end <= bytes.length, "a tensor lies inside the file");
    const count = shape.reduce((product, size) => product * BigInt(size), 1n);
    expect(count * BigInt(WIDTHS[dtype]) === BigInt(end - begin), "shape and bytes agree");
  }
}
