// Loses a model's cache and its fork without dispose(), then waits until both were collected. Prints the live caches.
import { setTimeout as wait } from "node:timers/promises";
import { loadModel } from "../../dist/index.js";
import { liveHandles } from "../../dist/testing.js";

const model = await loadModel({ kind: "folder", path: process.argv[2] });
async function lose() {
  const cache = await model.prefill(model.tokens([5, 6, 7]));
  cache.fork();
}
await lose();
const before = liveHandles().cache;
for (let i = 0; i < 200 && liveHandles().cache > 0; i++) {
  globalThis.gc();
  await wait(10);
}
console.log(JSON.stringify({ before, after: liveHandles().cache }));
await model.dispose();
