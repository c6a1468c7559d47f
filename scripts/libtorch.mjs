// Finds or fetches libtorch: the environment, our cache, a Python's PyTorch, pip, the official archive, in this order.
import { createHash } from "node:crypto";
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { capture, Failure, output, run } from "./process.mjs";

export const VERSION = "2.13.0";
const MINOR = "2.13.";
const LIBRARY = process.platform === "darwin" ? "dylib" : "so";
const ARCHIVES = {
  "linux-x64": `https://download.pytorch.org/libtorch/cpu/libtorch-shared-with-deps-${VERSION}%2Bcpu.zip`,
  "darwin-arm64": `https://download.pytorch.org/libtorch/cpu/libtorch-macos-arm64-${VERSION}.zip`,
};
/** SHA-256 of the archives by platform; an archive that is named here must match. */
const PINNED = {};
/** What of PyTorch is needed: its headers, the libraries an addon opens, and where the version is written. */
const PARTS = [
  "include/*",
  "lib/libtorch_cpu.*",
  "lib/libc10.*",
  "lib/libgomp*",
  "lib/libomp*",
  "version.py",
  "build-version",
];

/** Where our own copy lies. */
export function cacheFolder() {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  return join(base, "cache-to-cache", `libtorch-${VERSION}-cpu`);
}

/** The version a libtorch folder says it has, or why it is none that can be used. */
export function inspect(root) {
  for (const part of [`lib/libtorch_cpu.${LIBRARY}`, `lib/libc10.${LIBRARY}`, "include/ATen/core/Tensor.h"]) {
    if (!existsSync(join(root, part))) return { fault: `${join(root, part)} is missing` };
  }
  const places = [
    ["build-version", /^\s*(\S+)/],
    ["version.py", /__version__\s*=\s*['"]([^'"]+)['"]/],
    ["include/torch/csrc/api/include/torch/version.h", /#define TORCH_VERSION "([^"]+)"/],
    ["include/torch/headeronly/version.h", /#define TORCH_VERSION "([^"]+)"/],
  ];
  for (const [file, pattern] of places) {
    const path = join(root, file);
    const version = existsSync(path) ? pattern.exec(readFileSync(path, "utf8"))?.[1] : undefined;
    if (version === undefined) continue;
    return version.startsWith(MINOR) ? { version } : { fault: `${root} is version ${version}` };
  }
  return { fault: `${root} does not say its version` };
}

/**
 * { root, version, source, fresh? }. `previous` is what an earlier run found: used again where looking anew would start
 * a Python. `fresh` is set when something was fetched.
 */
export async function findLibtorch({ previous }) {
  const named = process.env.CACHE_TO_CACHE_LIBTORCH;
  if (named) {
    const { version, fault } = inspect(resolve(named));
    if (fault) throw new Failure(`CACHE_TO_CACHE_LIBTORCH does not name a libtorch ${VERSION}: ${fault}.`);
    return { root: resolve(named), version, source: "CACHE_TO_CACHE_LIBTORCH" };
  }
  const cached = cacheFolder();
  const own = inspect(cached);
  if (own.version) return { root: cached, version: own.version, source: "cache" };
  if (previous?.source === "python" && inspect(previous.root).version) return previous;
  const python = fromPython();
  if (python) return python;
  const reasons = [];
  for (const fetchInto of [fromPip, fromArchive]) {
    try {
      const source = await fetchInto(cached);
      return { root: cached, version: inspect(cached).version, source, fresh: true };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      reasons.push(error.message);
    }
  }
  throw new Failure(
    `libtorch ${VERSION} could not be had (${reasons.join("; ")}): connect to the network, set up pip, or set CACHE_TO_CACHE_LIBTORCH to an unpacked libtorch.`,
  );
}

function fromPython() {
  const script =
    "import importlib.util as u,os\ns=u.find_spec('torch')\nprint(os.path.dirname(s.origin) if s and s.origin else '')";
  for (const command of ["python3", "python"]) {
    const root = capture(command, ["-c", script])?.trim();
    if (!root) continue;
    const { version } = inspect(root);
    if (version) return { root, version, source: "python" };
  }
  return undefined;
}

function pipCommand() {
  for (const [command, ...args] of [["pip"], ["pip3"], ["python3", "-m", "pip"], ["python", "-m", "pip"]]) {
    if (capture(command, [...args, "--version"]) !== undefined) return [command, args];
  }
  throw new Failure("pip is not on PATH");
}

async function fromPip(target) {
  const [command, args] = pipCommand();
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-pip-"));
  try {
    const download = (wanted, ...more) =>
      run(command, [
        ...args,
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--retries",
        "0",
        "--timeout",
        "20",
        "--disable-pip-version-check",
        ...more,
        `torch==${wanted}`,
        "-d",
        folder,
      ]).ok;
    output(`libtorch: pip download --no-deps torch==${VERSION}`);
    // What pip is set up with first; PyTorch's own index second, for the general one has builds for CUDA only.
    const ok =
      (process.platform === "linux" && download(`${VERSION}+cpu`)) ||
      download(VERSION, "--extra-index-url", "https://download.pytorch.org/whl/cpu");
    const wheel = ok ? readdirSync(folder).find((name) => name.endsWith(".whl")) : undefined;
    if (wheel === undefined) throw new Failure(`pip could not download torch==${VERSION}`);
    install(join(folder, wheel), "torch", target);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return "pip";
}

async function fromArchive(target) {
  const platform = `${process.platform}-${process.arch}`;
  const url = ARCHIVES[platform];
  if (url === undefined) throw new Failure(`there is no official archive for ${platform}`);
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-archive-"));
  try {
    const file = join(folder, "libtorch.zip");
    const digest = await download(url, file);
    output(`libtorch: SHA-256 ${digest}`);
    const pinned = PINNED[platform];
    if (pinned !== undefined && pinned !== digest)
      throw new Failure(`${url} has SHA-256 ${digest} instead of ${pinned}`);
    install(file, "libtorch", target);
    writeFileSync(`${target}.sha256`, `${digest}  ${decodeURIComponent(url.slice(url.lastIndexOf("/") + 1))}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return "archive";
}

/** Streams a file to disk with progress on stderr; its SHA-256. */
async function download(url, file) {
  output(`libtorch: downloading ${url}`);
  const hash = createHash("sha256");
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(3_600_000) });
    if (!response.ok || !response.body) throw new Failure(`${url} answered ${response.status}`);
    const total = Number(response.headers.get("content-length") ?? 0);
    const step = process.stderr.isTTY ? 1 : 10;
    let have = 0;
    let shown = 0;
    const count = async function* (source) {
      for await (const chunk of source) {
        hash.update(chunk);
        have += chunk.length;
        const percent = total > 0 ? Math.floor((100 * have) / total) : 0;
        if (percent >= shown + step) {
          shown = percent;
          const line = `libtorch: ${percent} % of ${(total / 1e6).toFixed(0)} MB`;
          process.stderr.write(process.stderr.isTTY ? `\r${line}${percent === 100 ? "\n" : ""}` : `${line}\n`);
        }
        yield chunk;
      }
    };
    await pipeline(Readable.fromWeb(response.body), count, createWriteStream(file));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`the download of ${url} failed: ${error.cause?.code ?? error.message}`);
  }
  return hash.digest("hex");
}

/** Unpacks what is needed of `archive`'s folder `top` beside `target`, checks it, and puts it in place in one move. */
function install(archive, top, target) {
  mkdirSync(dirname(target), { recursive: true });
  const temporary = mkdtempSync(`${target}.`);
  try {
    output("libtorch: unpacking");
    unzip(
      archive,
      PARTS.map((part) => `${top}/${part}`),
      temporary,
    );
    const root = join(temporary, top);
    const { fault } = inspect(root);
    if (fault) throw new Failure(`what was fetched cannot be used: ${fault}`);
    if (
      /^cuda[^=]*=\s*['"]/m.test(
        existsSync(join(root, "version.py")) ? readFileSync(join(root, "version.py"), "utf8") : "",
      )
    ) {
      throw new Failure("what was fetched is a build for CUDA, which cannot run without its other packages");
    }
    rmSync(target, { recursive: true, force: true });
    renameSync(root, target);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function unzip(archive, patterns, folder) {
  // unzip ends with 11 when a pattern matched nothing, which is as it should be: not every build has every part.
  if (capture("unzip", ["-v"]) !== undefined) {
    run("unzip", ["-q", "-o", archive, ...patterns, "-d", folder], { stdio: "ignore" });
    return;
  }
  const script = [
    "import sys, zipfile, fnmatch",
    "archive, folder, *patterns = sys.argv[1:]",
    "z = zipfile.ZipFile(archive)",
    "z.extractall(folder, [n for n in z.namelist() if any(fnmatch.fnmatch(n, p) for p in patterns)])",
  ].join("\n");
  for (const command of ["python3", "python"]) {
    if (run(command, ["-c", script, archive, folder, ...patterns]).ok) return;
  }
  throw new Failure("neither unzip nor python3 is there to unpack it");
}
