// Finds or fetches libtorch: the environment, our cache, a Python's PyTorch, a download, pip, in this order.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { capture, Failure, output } from "../process.mjs";
import { download, progressLine } from "./download.mjs";
import { isNeeded, packageFor } from "./packages.mjs";
import { pipDownload } from "./pip.mjs";
import { cacheFolder, choiceFile, home, inspect, VERSION } from "./places.mjs";
import { unzip } from "./unzip.mjs";

/**
 * { root, version, source, fresh? }. `previous` is what an earlier run found: used again where looking anew would start
 * a Python. `fresh` is set when something was fetched. `headers`: what a build needs must be there too. `force`: fetch
 * even when there is one. Throws Failure with every reason.
 */
export async function findLibtorch({ previous, variant = "cpu", headers = true, force = false, signal } = {}) {
  const named = process.env.CACHE_TO_CACHE_LIBTORCH;
  if (named) {
    const { version, fault } = inspect(resolve(named), { headers });
    if (fault)
      throw new Failure(`CACHE_TO_CACHE_LIBTORCH does not name a libtorch ${VERSION}: ${resolve(named)}: ${fault}.`);
    return { root: resolve(named), version, source: "CACHE_TO_CACHE_LIBTORCH" };
  }
  const cached = cacheFolder(variant);
  if (!force) {
    const own = inspect(cached, { headers });
    if (own.version) return { root: cached, version: own.version, source: "cache" };
    if (previous?.source === "python" && fits(previous.root, variant, headers)) return previous;
    const python = fromPython(variant, headers);
    if (python) return python;
  }
  const reasons = [];
  for (const fetchInto of [fromServer, fromPip]) {
    try {
      const source = await fetchInto(cached, variant, signal);
      return { root: cached, version: inspect(cached, { headers }).version, source, fresh: true };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (/disk/i.test(error.message) || /SHA-256/.test(error.message)) throw error;
      reasons.push(error.message.replace(/\.$/, ""));
    }
  }
  throw new Failure(
    `libtorch ${VERSION} could not be had (${reasons.join("; ")}): connect to the network, set up pip, or set CACHE_TO_CACHE_LIBTORCH to an unpacked libtorch.`,
  );
}

/** Writes down which libtorch the package is to load from now on. */
export function choose({ root, version, source }) {
  mkdirSync(home(), { recursive: true });
  const temporary = `${choiceFile()}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify({ root, version, source }, null, 2)}\n`);
  renameSync(temporary, choiceFile());
}

function fits(root, variant, headers) {
  const found = inspect(root, { headers });
  return found.version !== undefined && found.variant === variant;
}

function fromPython(variant, headers) {
  const script =
    "import importlib.util as u,os\ns=u.find_spec('torch')\nprint(os.path.dirname(s.origin) if s and s.origin else '')";
  for (const command of ["python3", "python"]) {
    const root = capture(command, ["-c", script])?.trim();
    if (root && fits(root, variant, headers)) return { root, version: inspect(root).version, source: "python" };
  }
  return undefined;
}

async function fromServer(target, variant, signal) {
  const platform = `${process.platform}-${process.arch}`;
  const wanted = packageFor(platform, variant);
  if (wanted === undefined) throw new Failure(`there is no ${variant} build of libtorch ${VERSION} for ${platform}`);
  // Another place for the same files: a mirror, or a server of one's own.
  const mirror = process.env.CACHE_TO_CACHE_MIRROR;
  const url = mirror ? new URL(basename(wanted.url), mirror.replace(/\/*$/, "/")).href : wanted.url;
  const file = join(home(), "downloads", decodeURIComponent(basename(wanted.url)));
  // A mirror may have a build of one's own, with the digest that its owner names.
  const sha256 = (mirror && process.env.CACHE_TO_CACHE_MIRROR_SHA256) || wanted.sha256;
  output(`libtorch: downloading ${url}`);
  const digest = await download({ url, file, sha256, signal, onProgress: progressLine(file) });
  try {
    output(`libtorch: SHA-256 ${digest}, as it must be`);
    await install(file, wanted.top, target, variant);
    writeFileSync(`${target}.sha256`, `${digest}  ${basename(file)}\n`);
  } finally {
    rmSync(file, { force: true });
  }
  return "download";
}

async function fromPip(target, variant) {
  if (variant !== "cpu") throw new Failure("pip has the CPU build only");
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-pip-"));
  try {
    output(`libtorch: pip download --no-deps torch==${VERSION}`);
    // What pip is set up with first; PyTorch's own index second, for the general one has builds for CUDA only.
    const wheel =
      (process.platform === "linux" && pipDownload(`torch==${VERSION}+cpu`, folder)) ||
      pipDownload(`torch==${VERSION}`, folder, "--extra-index-url", "https://download.pytorch.org/whl/cpu");
    if (wheel === undefined) throw new Failure(`pip could not download torch==${VERSION}`);
    await install(wheel, "torch", target, variant);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return "pip";
}

/** Unpacks what is needed of `archive`'s folder `top` beside `target`, checks it, and puts it in place in one move. */
async function install(archive, top, target, variant) {
  mkdirSync(dirname(target), { recursive: true });
  const root = mkdtempSync(`${target}.`);
  try {
    output("libtorch: unpacking");
    const place = (name) =>
      name.startsWith(`${top}/`) && isNeeded(name.slice(top.length + 1), variant)
        ? name.slice(top.length + 1)
        : undefined;
    await unzip(archive, root, place);
    const found = inspect(root, { headers: true });
    if (found.fault) throw new Failure(`what was fetched cannot be used: ${found.fault}`);
    if (variant === "cpu" && isForCuda(root))
      throw new Failure("what was fetched is a build for CUDA, which cannot run without its other packages");
    rmSync(target, { recursive: true, force: true });
    renameSync(root, target);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function isForCuda(root) {
  const file = join(root, "version.py");
  return existsSync(file) && /^cuda[^=]*=\s*['"]/m.test(readFileSync(file, "utf8"));
}
