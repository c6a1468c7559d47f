// Work in flight at every kind of end: the process or the worker ends by itself, with the expected status, without a crash.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

const root = fileURLToPath(new URL("../", import.meta.url));
const DEADLINE_MS = 60_000;

/** Starts a prefill of 2,000 tokens and says "busy" once it runs. */
const start = `
  import { loadModel } from "${new URL("../dist/index.js", import.meta.url).href}";
  const model = await loadModel({ kind: "folder", path: ${JSON.stringify(`${root}models/pair/receiver`)} });
  const tokens = model.tokens(Array.from({ length: 2000 }, (_, i) => i % 1000));
  const work = Promise.all([model.prefill(tokens), model.prefill(tokens), model.prefill(tokens)]);
  work.catch(() => {});
`;

function run(code, onLine) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`still running after ${DEADLINE_MS} ms: ${output}${errors}`));
    }, DEADLINE_MS);
    child.stdout.on("data", (chunk) => {
      output += chunk;
      onLine?.(child, output);
    });
    child.stderr.on("data", (chunk) => {
      errors += chunk;
    });
    child.on("exit", (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, output, errors });
    });
  });
}

test("natural exit waits for the work", async () => {
  const end = await run(`${start} const caches = await work; console.log(caches[2].length);`);
  assert.equal([end.status, end.signal, end.output.trim()], [0, null, "2000"], end.errors);
});

test("natural exit with a promise that nobody awaits", async () => {
  const end = await run(`${start} work.then(() => console.log("settled"));`);
  assert.equal([end.status, end.signal, end.output.trim()], [0, null, "settled"], end.errors);
});

test("process.exit in the middle of a job", async () => {
  const end = await run(`${start} setTimeout(() => process.exit(7), 30);`);
  assert.equal([end.status, end.signal, end.errors], [7, null, ""]);
});

test("an uncaught error in the middle of a job", async () => {
  const end = await run(`${start} setTimeout(() => { throw new Error("ours"); }, 30);`);
  assert.is(end.signal, null);
  assert.is(end.status, 1);
  assert.match(end.errors, /ours/);
});

test("SIGINT in the middle of a job", async () => {
  let sent = false;
  const end = await run(`${start} console.log("busy"); await work;`, (child, output) => {
    if (sent || !output.includes("busy")) return;
    sent = true;
    child.kill("SIGINT");
  });
  assert.is(end.signal, "SIGINT", `${end.status} ${end.errors}`);
});

test("SIGINT with a handler that exits", async () => {
  let sent = false;
  const code = `${start} process.on("SIGINT", () => process.exit(3)); console.log("busy"); await work;`;
  const end = await run(code, (child, output) => {
    if (sent || !output.includes("busy")) return;
    sent = true;
    child.kill("SIGINT");
  });
  assert.equal([end.status, end.signal, end.errors], [3, null, ""]);
});

test("a worker thread that is terminated in the middle of a job, while the main thread works on", async () => {
  const code = `
    import { Worker } from "node:worker_threads";
    ${start}
    const inside = ${JSON.stringify(start)} + 'import { parentPort } from "node:worker_threads"; parentPort.postMessage("busy"); await work;';
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(new URL("data:text/javascript," + encodeURIComponent(inside)));
      await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      await worker.terminate();
    }
    const caches = await work;
    const after = await model.prefill(model.tokens([1, 2, 3]));
    console.log(caches.length, after.length);
  `;
  const end = await run(code);
  assert.equal([end.status, end.signal, end.output.trim()], [0, null, "3 3"], end.errors);
});

test("a worker thread that ends by itself", async () => {
  const code = `
    import { Worker } from "node:worker_threads";
    const inside = ${JSON.stringify(start)} + 'const caches = await work; console.log(caches.length);';
    const worker = new Worker(new URL("data:text/javascript," + encodeURIComponent(inside)));
    await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
    console.log("done");
  `;
  const end = await run(code);
  assert.equal([end.status, end.signal, end.output.trim()], [0, null, "3\ndone"], end.errors);
});

test.run();
