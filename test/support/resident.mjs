// Resident megabytes of a model's and a fuser's weights, and of libtorch's code, once a long text is read and fused. Prints one
// JSON object.
//   node resident.mjs FOLDER     models and a fuser are written there
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { configs, fuser as sizes, writeFuser, writeModel } from "../../bench/models.mjs";
import { fuse, loadFuser, loadModel } from "../../dist/index.js";

const layers = 2;
const small = { hidden_size: 128, num_hidden_layers: layers, intermediate_size: 256 };
const written = async (name, write) => {
  const path = join(process.argv[2], name);
  mkdirSync(path);
  await write(path);
  return { kind: "folder", path };
};
const [receiver, sharer] = await Promise.all(
  ["receiver", "sharer"].map(async (name) => {
    const config = { ...configs[name], head_dim: name === "receiver" ? 128 : 64, ...small };
    return loadModel(await written(name, (path) => writeModel(path, config, name, "bfloat16")));
  }),
);
const fused = { ...sizes, fused: layers };
const fuser = await loadFuser(await written("fuser", (path) => writeFuser(path, "open", "bfloat16", fused)), {
  receiver,
  sharer,
});
const ids = Array.from({ length: 128 }, (_, i) => (i * 7919 + 13) % receiver.shape.vocab);
const [cache, other] = [await receiver.prefill(receiver.tokens(ids)), await sharer.prefill(sharer.tokens(ids))];
await fuse(cache, [{ fuser, sharer: other }]);

/** Of mappings that nobody writes to. */
function resident(file) {
  const mappings = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const wanted = mappings.filter(
    (text) => / r-[-x]. .*\n/.test(text.slice(0, 300)) && text.split("\n")[0].includes(file),
  );
  return wanted.reduce((sum, text) => sum + Number(/^Rss:\s+(\d+) kB/m.exec(text)[1]) / 1024, 0);
}

console.log(
  JSON.stringify({
    weights: resident("model.safetensors"),
    fuser: resident("fuser.safetensors"),
    libtorch: resident("libtorch_cpu.so"),
  }),
);
process.exit(0);
