// Saves caches of one token repeated, one after another to the same file, until it is killed; a dot for each save.
//   node save-forever.mjs PATH SOURCE ROWS
import { loadModel } from "../../dist/index.js";

const [path, source, rows] = process.argv.slice(2);
const model = await loadModel(JSON.parse(source));
const caches = [];
for (const token of [2, 3, 4]) caches.push(await model.prefill(model.tokens(new Array(Number(rows)).fill(token))));
for (let i = 0; ; i++) {
  process.stdout.write(".");
  await caches[i % caches.length].save(path);
}
