// Every writer of the package, run where there is no room: in a folder on a full disk, or under a limit of the size of files.
// Prints one JSON object: for each writer the code and the system's code of its error, or what else happened.
//   node full-disk.mjs FOLDER FUSER     FOLDER holds what `prepare` in 72-full-disk.test.mjs put there
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeTokenizer } from "../../dist/bpe/index.js";
import { readFuserFolder, writeFuserFolder } from "../../dist/fuser/folder.js";
import { loadModel } from "../../dist/index.js";
import { writeCheckpoint as writeRun } from "../../dist/train/checkpoint.js";
import { writeAtomic } from "../../dist/weights/atomic.js";
import { writeCheckpoint } from "../../dist/weights/checkpoint.js";
import { writeSafetensors } from "../../dist/weights/safetensors.js";
import { resolveSource } from "../../dist/weights/source.js";

const [folder, source] = process.argv.slice(2);
const fuser = await readFuserFolder(source);
const at = (name) => join(folder, name);
const data = new Uint8Array(4_000_000);
const tensors = [{ name: "a", dtype: "F32", shape: [data.length / 4], data }];
const many = Array.from({ length: 20_000 }, (_, i) => `token-number-${i}`);

const writers = {
  "a native fuser": () => writeFuserFolder(fuser, at("native"), "native"),
  "a reference fuser": () => writeFuserFolder(fuser, at("reference"), "reference"),
  safetensors: () => writeSafetensors(at("old.safetensors"), tensors),
  "a checkpoint": () => writeCheckpoint(at("old.pt"), tensors),
  text: () => writeAtomic(at("old.json"), "x".repeat(4_000_000)),
  "a new file": () => writeAtomic(at("new.json"), "x".repeat(4_000_000)),
  "a tokenizer": () =>
    writeTokenizer(at("tokenizer"), {
      tokens: many,
      merges: [],
      specials: [],
      pattern: "gpt2",
    }),
  "a training checkpoint": () =>
    writeRun(at("run"), record(2), { parameters: () => [], read: async () => new Float32Array() }, (temporary) =>
      writeSafetensors(join(temporary, "model.safetensors"), tensors),
    ),
  "a cache": async () => {
    const path = fileURLToPath(new URL("../../models/pair/receiver", import.meta.url));
    const model = await loadModel({ kind: "folder", path });
    const cache = await model.prefill(model.tokens(Array.from({ length: 500 }, (_, i) => i)));
    await cache.save(at("old.cache"));
  },
  "a download": () => resolveSource({ kind: "hub", repo: "tiny/pair" }, "model"),
};

/** What a training run says of its step. */
function record(step) {
  return { step, finished: false, recipe: {} };
}

const results = {};
for (const [name, write] of Object.entries(writers)) {
  try {
    await write();
    results[name] = "written";
  } catch (error) {
    results[name] = error.code === "IO_FAILED" ? `IO_FAILED ${error.details.system}` : (error.stack ?? String(error));
  }
}
process.stdout.write(JSON.stringify(results));
