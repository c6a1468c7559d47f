import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { resolveSource } from "../dist/weights/source.js";

const commit = "0123456789abcdef0123456789abcdef01234567";
const weights = Buffer.alloc(300_000, 7);
const files = new Map([
  ["config.json", Buffer.from('{"model_type":"qwen3"}')],
  ["tokenizer.json", Buffer.from("{}")],
  ["tokenizer_config.json", Buffer.from("{}")],
  ["model.safetensors", weights],
  ["pytorch_model.bin", Buffer.from("unwanted")],
  ["README.md", Buffer.from("unwanted")],
  ["pair/config.json", Buffer.from('{"model":{}}')],
  ["pair/final/projector_0.json", Buffer.from("{}")],
  ["pair/final/projector_0.pt", Buffer.from("weights")],
  ["pair/final/projector_config.json", Buffer.from("{}")],
]);
const digest = (kind, data) => createHash(kind).update(data).digest("hex");

let requests = [];
let behaviour = "normal";
const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  requests.push(pathname);
  const json = (value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (behaviour === "denied") return response.writeHead(401).end("no");
  if (!pathname.includes("/tiny/pair")) return response.writeHead(404).end("no");
  if (/^\/api\/models\/tiny\/pair\/revision\/main$/.test(pathname))
    return json({ id: "1", modelId: "tiny/pair", sha: commit });
  if (pathname.startsWith(`/api/models/tiny/pair/tree/${commit}`)) {
    return json(
      [...files].map(([path, data]) => ({
        type: "file",
        path,
        size: data.length,
        oid: digest("sha1", data),
        ...(data === weights ? { lfs: { oid: digest("sha256", data), size: data.length, pointerSize: 120 } } : {}),
      })),
    );
  }
  const path = decodeURIComponent(pathname).split(`/resolve/${commit}/`)[1];
  const data = files.get(path ?? "");
  if (!data) return response.writeHead(404, { "X-Error-Code": "EntryNotFound" }).end();
  const [, start = "0", end = ""] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "") ?? [];
  const last = end === "" ? data.length - 1 : Math.min(Number(end), data.length - 1);
  response.writeHead(request.headers.range ? 206 : 200, {
    ETag: `"${digest("sha1", data)}"`,
    "X-Repo-Commit": commit,
    "content-range": `bytes ${start}-${last}/${data.length}`,
    "content-length": last + 1 - Number(start),
  });
  if (behaviour === "slow" && data === weights && last > 0) {
    response.write(data.subarray(0, 1000));
    return undefined;
  }
  if (behaviour === "corrupt" && data === weights) return response.end(Buffer.alloc(last + 1 - Number(start), 8));
  return response.end(data.subarray(Number(start), last + 1));
});

const source = { kind: "hub", repo: "tiny/pair" };
let home;

test.before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  process.env.HF_ENDPOINT = `http://127.0.0.1:${server.address().port}`;
});
test.before.each(async () => {
  home = await mkdtemp(join(tmpdir(), "c2c-hub-"));
  process.env.HF_HUB_CACHE = home;
  delete process.env.HF_HUB_OFFLINE;
  delete process.env.HF_TOKEN;
  behaviour = "normal";
  requests = [];
});
test.after.each(() => rm(home, { recursive: true, force: true }));
test.after(() => {
  server.closeAllConnections();
  server.close();
});

const rejection = (promise) =>
  promise.then(
    () => assert.unreachable(),
    (error) => error,
  );
const leftovers = async () => (await readdir(home, { recursive: true })).filter((name) => name.endsWith(".incomplete"));

test("a model: only what it needs, then offline", async () => {
  const events = [];
  const folder = await resolveSource(source, "model", { onProgress: (event) => events.push(event) });
  const wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
  assert.equal((await readdir(folder)).sort(), wanted);
  assert.ok((await readFile(join(folder, "model.safetensors"))).equals(weights));
  assert.is(events.filter(({ file }) => file === "model.safetensors").at(-1).bytes, weights.length);
  assert.equal(await readFile(join(home, "models--tiny--pair/refs/main"), "utf8"), commit);

  requests = [];
  process.env.HF_HUB_OFFLINE = "1";
  assert.is(await resolveSource(source, "model"), folder);
  assert.equal(requests, []);
});

test("a fuser in a folder of a repository", async () => {
  const folder = await resolveSource({ ...source, folder: "pair" }, "fuser");
  assert.equal((await readdir(folder)).sort(), ["config.json", "final"]);
  assert.equal((await readdir(join(folder, "final"))).sort(), [
    "projector_0.json",
    "projector_0.pt",
    "projector_config.json",
  ]);
  requests = [];
  assert.is(await resolveSource({ ...source, folder: "pair", revision: commit }, "fuser"), folder);
  assert.equal(requests, []);
});

test("an abort rejects with its reason and leaves nothing half-written", async () => {
  behaviour = "slow";
  const controller = new AbortController();
  const reason = new Error("enough");
  const onProgress = ({ file, bytes }) => file === "model.safetensors" && bytes > 0 && controller.abort(reason);
  const error = await rejection(resolveSource(source, "model", { signal: controller.signal, onProgress }));
  assert.is(error, reason);
  assert.equal(await leftovers(), []);
  behaviour = "normal";
  await resolveSource(source, "model");
});

test("statuses become DOWNLOAD_FAILED", async () => {
  const missing = await rejection(resolveSource({ kind: "hub", repo: "no/body" }, "model"));
  assert.is(missing.code, "DOWNLOAD_FAILED");
  assert.is(missing.details.status, 404);
  behaviour = "denied";
  assert.is((await rejection(resolveSource(source, "model"))).details.status, 401);
  process.env.HF_HUB_OFFLINE = "1";
  assert.is((await rejection(resolveSource(source, "model"))).details.status, null);
});

test("a file that is not what the hub lists is refused", async () => {
  behaviour = "corrupt";
  const error = await rejection(resolveSource(source, "model"));
  assert.is(error.code, "DOWNLOAD_FAILED");
  assert.is(error.details.file, "model.safetensors");
  assert.equal(await leftovers(), []);
});

test("no server", async () => {
  const endpoint = process.env.HF_ENDPOINT;
  process.env.HF_ENDPOINT = "http://127.0.0.1:9";
  const error = await rejection(resolveSource(source, "model"));
  process.env.HF_ENDPOINT = endpoint;
  assert.is(error.code, "DOWNLOAD_FAILED");
  assert.is(error.details.status, null);
});

test("folders", async () => {
  assert.is(await resolveSource({ kind: "folder", path: home }, "model"), home);
  assert.is(
    (await rejection(resolveSource({ kind: "folder", path: join(home, "none") }, "model"))).details.system,
    "ENOENT",
  );
  const file = new URL(import.meta.url).pathname;
  assert.is((await rejection(resolveSource({ kind: "folder", path: file }, "model"))).details.system, "ENOTDIR");
});

test("names that would leave the cache are refused", async () => {
  for (const bad of [
    { repo: "../x" },
    { repo: "tiny/pair", revision: "../../x" },
    { repo: "tiny/pair", folder: "/etc" },
  ]) {
    assert.is((await rejection(resolveSource({ kind: "hub", ...bad }, "model"))).code, "OPTION_INVALID");
  }
});

test.run();
