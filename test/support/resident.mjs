// Resident megabytes of a model's weights and of libtorch's code once a long text is read. Prints one JSON object.
//   node resident.mjs FOLDER     a model is written there
import { readFileSync } from "node:fs";
import { configs, writeModel } from "../../bench/models.mjs";
import { loadModel } from "../../dist/index.js";

const folder = process.argv[2];
const config = { ...configs.receiver, hidden_size: 128, num_hidden_layers: 2, intermediate_size: 256 };
await writeModel(folder, config, "receiver", "bfloat16");
const model = await loadModel({ kind: "folder", path: folder });
await model.prefill(model.tokens(Array.from({ length: 128 }, (_, i) => (i * 7919 + 13) % model.shape.vocab)));

/** Of mappings that nobody writes to. */
function resident(file) {
  const mappings = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const wanted = mappings.filter(
    (text) => / r-[-x]. .*\n/.test(text.slice(0, 300)) && text.split("\n")[0].includes(file),
  );
  return wanted.reduce((sum, text) => sum + Number(/^Rss:\s+(\d+) kB/m.exec(text)[1]) / 1024, 0);
}

console.log(JSON.stringify({ weights: resident("model.safetensors"), libtorch: resident("libtorch_cpu.so") }));
process.exit(0);
