// Fetching libtorch from a server: whole, interrupted, changed, damaged, on a full disk; and what `doctor` and an import
// say without it.
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { zipSync } from "fflate";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { download } from "../scripts/libtorch/download.mjs";
import { packageFor } from "../scripts/libtorch/packages.mjs";
import { inspect, libraryName, VERSION } from "../scripts/libtorch/places.mjs";
import { unzip } from "../scripts/libtorch/unzip.mjs";
import { reconfigure } from "../scripts/process.mjs";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const CLI = join(HOME, "dist/cli/main.js");
const sha = (bytes) => createHash("sha256").update(bytes).digest("hex");
const execute = promisify(execFile);

/** A server of one file; `state` says how it behaves and keeps what was asked. */
async function serve(body) {
  const state = { body, tag: '"one"', breakAfter: Number.POSITIVE_INFINITY, breaks: 0, status: 200, ranges: [] };
  const server = createServer((request, response) => {
    state.ranges.push(request.headers.range ?? null);
    if (state.status !== 200) return response.writeHead(state.status).end();
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    const fits = asked && (request.headers["if-range"] ?? state.tag) === state.tag;
    const start = fits ? Number(asked[1]) : 0;
    const part = state.body.subarray(start);
    response.writeHead(fits ? 206 : 200, {
      etag: state.tag,
      "content-length": part.length,
      ...(fits ? { "content-range": `bytes ${start}-${state.body.length - 1}/${state.body.length}` } : {}),
    });
    if (state.breaks > 0) {
      state.breaks--;
      // The connection is cut once this much has gone out.
      response.write(part.subarray(0, state.breakAfter), () => setTimeout(() => response.socket.destroy(), 20));
    } else response.end(part);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { state, url: `http://127.0.0.1:${server.address().port}/file.zip`, close: () => server.close() };
}

const test = suite("setup");
test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), "cache to cache setup "));
  context.file = join(context.folder, "deep", "file.zip");
  context.body = randomBytes(600_000);
  context.server = await serve(context.body);
});
test.after.each(async ({ folder, server }) => {
  server.close();
  await rm(folder, { recursive: true, force: true });
});

const failure = (promise) =>
  promise.then(
    () => assert.unreachable("a failure was expected"),
    (error) => error,
  );

test("a whole download", async ({ file, body, server }) => {
  const seen = [];
  const digest = await download({ url: server.url, file, sha256: sha(body), onProgress: (have) => seen.push(have) });
  assert.is(digest, sha(body));
  assert.ok(body.equals(await readFile(file)));
  assert.is(seen.at(-1), body.length);
  assert.equal(await readdir(join(file, "..")), ["file.zip"]);
});

test("goes on after interruptions", async ({ file, body, server }) => {
  Object.assign(server.state, { breaks: 3, breakAfter: 100_000 });
  assert.is(await download({ url: server.url, file, sha256: sha(body), pause: 5 }), sha(body));
  assert.ok(body.equals(await readFile(file)));
  const [first, ...more] = server.state.ranges;
  assert.is(first, null);
  assert.is(more.length, 3);
  for (const range of more) assert.match(range, /^bytes=[1-9]\d*-$/);
});

test("goes on in another run after being stopped", async ({ file, body, server }) => {
  const stop = new AbortController();
  const reason = new Error("stopped");
  const onProgress = (have) => have > 50_000 && stop.abort(reason);
  Object.assign(server.state, { breaks: 1, breakAfter: 200_000 });
  assert.is(await failure(download({ url: server.url, file, signal: stop.signal, onProgress })), reason);
  assert.not.ok(existsSync(file));
  const digest = await download({ url: server.url, file, sha256: sha(body) });
  assert.is(digest, sha(body));
  assert.match(server.state.ranges.at(-1), /^bytes=[1-9]/);
});

test("a file that changed at the server is fetched anew", async ({ file, body, server }) => {
  Object.assign(server.state, { breaks: 99, breakAfter: 50_000 });
  const error = await failure(download({ url: server.url, file, pause: 1, signal: AbortSignal.timeout(150) }));
  assert.is(error.name, "TimeoutError");
  const other = randomBytes(body.length);
  Object.assign(server.state, { body: other, tag: '"two"', breaks: 0 });
  assert.is(await download({ url: server.url, file, sha256: sha(other) }), sha(other));
});

test("a wrong checksum leaves nothing", async ({ file, server }) => {
  const error = await failure(download({ url: server.url, file, sha256: "0".repeat(64) }));
  assert.match(error.message, /has SHA-256 [0-9a-f]{64} instead of 0{64}: what came was deleted/);
  assert.equal(await readdir(join(file, "..")), []);
});

test("no such file is said at once; an overloaded server is asked five times", async ({ file, server }) => {
  server.state.status = 404;
  assert.match((await failure(download({ url: server.url, file, pause: 1 }))).message, /answered 404$/);
  assert.is(server.state.ranges.length, 1);
  server.state.status = 503;
  assert.match((await failure(download({ url: server.url, file, pause: 1 }))).message, /failed: status 503/);
  assert.is(server.state.ranges.length, 6);
});

test("no connection", async ({ file, server }) => {
  server.close();
  const error = await failure(download({ url: "http://127.0.0.1:1/file.zip", file, pause: 1 }));
  assert.match(error.message, /^the download of .* failed: /);
});

test("a full disk keeps what came and names the cure", async ({ file, server }) => {
  await mkdir(join(file, ".."), { recursive: true });
  // Every write to this device fails with ENOSPC, as on a full disk.
  await symlink("/dev/full", `${file}.part`);
  const error = await failure(download({ url: server.url, file }));
  assert.match(error.message, /^The disk that holds .* is full.*XDG_CACHE_HOME/);
  assert.ok(existsSync(`${file}.part`));
});

const wheel = (version) => ({
  [`torch/lib/${libraryName("torch_cpu")}`]: randomBytes(50_000),
  [`torch/lib/${libraryName("c10")}`]: [new Uint8Array(90_000), { level: 9 }],
  "torch/lib/libtorch_python.so": randomBytes(10),
  "torch/include/ATen/core/Tensor.h": Buffer.from("#pragma once\n"),
  "torch/version.py": Buffer.from(`__version__ = '${version}'\ncuda: Optional[str] = None\n`),
  "torch/nn.py": Buffer.from("pass\n"),
});

test("unpacking", async ({ folder }) => {
  const archive = join(folder, "a.zip");
  const content = wheel(`${VERSION}+cpu`);
  const bytes = zipSync(content, { level: 0 });
  await writeFile(archive, bytes);
  const out = join(folder, "out");
  assert.is(await unzip(archive, out, (name) => (name.endsWith(".py") ? undefined : name)), 4);
  const c10 = await readFile(join(out, "torch/lib", libraryName("c10")));
  assert.ok(c10.equals(Buffer.alloc(90_000)));
  for (const length of [10, 1000, bytes.length - 1]) {
    await writeFile(archive, bytes.subarray(0, length));
    assert.match((await failure(unzip(archive, out, (name) => name))).message, /zip file/);
  }
  const damaged = Buffer.from(bytes);
  damaged[200] ^= 1;
  await writeFile(archive, damaged);
  assert.match((await failure(unzip(archive, out, (name) => name))).message, /is damaged/);
  await writeFile(archive, zipSync({ "a/../../b": new Uint8Array(1) }));
  assert.match((await failure(unzip(archive, out, (name) => name))).message, /bad name/);
});

test("what CMake configured elsewhere, for another generator or compiler begins anew", async ({ folder }) => {
  const build = join(folder, "build");
  const wanted = { CMAKE_GENERATOR: "Ninja", CMAKE_CXX_COMPILER: "g++" };
  const configure = async (place, generator, compiler) => {
    await mkdir(join(build, "CMakeFiles"), { recursive: true });
    const lines = [`CMAKE_CACHEFILE_DIR:INTERNAL=${place}`, `CMAKE_GENERATOR:INTERNAL=${generator}`];
    await writeFile(
      join(build, "CMakeCache.txt"),
      [...lines, `CMAKE_CXX_COMPILER:FILEPATH=${compiler}`, ""].join("\n"),
    );
    await writeFile(join(build, "kept.o"), "");
  };
  assert.is(reconfigure(build, wanted), false, "nothing was configured");
  await configure(build, "Ninja", "/usr/bin/g++");
  assert.is(reconfigure(build, wanted), false);
  assert.ok(existsSync(join(build, "CMakeCache.txt")));
  for (const [place, generator, compiler] of [
    [build, "Unix Makefiles", "/usr/bin/g++"],
    [build, "Ninja", "/usr/bin/clang++"],
    [join(folder, "gone"), "Ninja", "/usr/bin/g++"],
    [folder, "Ninja", "/usr/bin/g++"],
  ]) {
    await configure(place, generator, compiler);
    assert.is(reconfigure(build, wanted), true);
    assert.equal(await readdir(build), ["kept.o"]);
  }
});

/** Runs the command line with a cache folder, a server and no other way to get libtorch. */
async function cli(folder, server, ...args) {
  const [digest, ...rest] = /^[0-9a-f]{64}$/.test(args[0]) ? args : [undefined, ...args];
  const env = {
    ...process.env,
    XDG_CACHE_HOME: folder,
    CACHE_TO_CACHE_MIRROR: new URL(".", server.url).href,
    PATH: "",
    ...(digest && { CACHE_TO_CACHE_MIRROR_SHA256: digest }),
  };
  delete env.CACHE_TO_CACHE_LIBTORCH;
  try {
    return { code: 0, ...(await execute(process.execPath, [CLI, ...rest], { env })) };
  } catch (error) {
    return { code: error.code, stdout: error.stdout, stderr: error.stderr };
  }
}

if (packageFor(`${process.platform}-${process.arch}`, "cu130")) {
  test("setup fetches what a mirror has, and refuses another file", async ({ folder, server }) => {
    server.state.body = Buffer.from(zipSync({ ...renamed(wheel(`${VERSION}+cu130`)) }));
    const digest = sha(server.state.body);
    const first = await cli(folder, server, digest, "setup", "--variant", "cu130");
    const root = join(folder, "cache-to-cache", `libtorch-${VERSION}-cu130`);
    assert.match(first.stderr, /SHA-256 [0-9a-f]{64}, as it must be/);
    assert.equal(inspect(root, { headers: true }), { version: `${VERSION}+cu130`, minor: "2.13", variant: "cu130" });
    assert.ok((await readFile(`${root}.sha256`, "utf8")).startsWith(digest));
    const choice = JSON.parse(await readFile(join(folder, "cache-to-cache/libtorch.json"), "utf8"));
    assert.is(choice.root, root);
    const again = await cli(folder, server, digest, "setup", "--variant", "cu130");
    assert.match(again.stderr, new RegExp(`libtorch: ${VERSION}\\+cu130 from cache`));
    server.state.body = Buffer.from(zipSync({ ...renamed(wheel(`${VERSION}+cu130`)) }));
    const forced = await cli(folder, server, digest, "setup", "--variant", "cu130", "--force");
    assert.is(forced.code, 1);
    assert.match(forced.stderr, /instead of/);
    assert.ok(inspect(root).version, "what was there stays");
    assert.equal(await readdir(join(folder, "cache-to-cache/downloads")), []);
  });
}

if (packageFor(`${process.platform}-${process.arch}`, "cpu")) {
  test("setup refuses a file that is not the pinned one", async ({ folder, server }) => {
    const { code, stderr } = await cli(folder, server, "setup");
    assert.is(code, 1);
    assert.match(stderr, /SHA-256 [0-9a-f]{64} instead of [0-9a-f]{64}/);
    assert.not.ok(existsSync(join(folder, "cache-to-cache/libtorch.json")));
  });
}

function renamed(content) {
  return Object.fromEntries(
    Object.entries(content).map(([name, value]) => [name.replace(/^torch\//, "libtorch/"), value]),
  );
}

test("doctor says what is there and what is wrong", async ({ folder }) => {
  const { stdout } = await execute(process.execPath, [CLI, "doctor", "--json"]);
  const found = JSON.parse(stdout);
  assert.match(found.libtorch.version, /^2\.13\./);
  assert.match(found.binary.path, /\.node$/);
  assert.match(found.devices[0], /^cpu: /);
  assert.equal(
    found.findings.filter(({ level }) => level === "error"),
    [],
  );
  const env = { ...process.env, CACHE_TO_CACHE_LIBTORCH: folder };
  const error = await failure(execute(process.execPath, [CLI, "doctor"], { env }));
  assert.is(error.code, 1);
  assert.match(error.stdout, /WRONG: libtorch 2\.13 was not found/);
  assert.match(error.stdout, /→ /);
});

test.run();
