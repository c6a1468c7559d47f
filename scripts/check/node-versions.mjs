// The same binary on other versions of Node: fetches them from npm into a cache folder and runs the README's example, the
// native contract under each; with --all also exits with work in flight, which take a minute.
//   npm run check:node-versions [-- --all] [VERSION…]     default: 20 22 24; needs prebuilds/ (npm run prebuild) and a libtorch
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { home as cacheHome } from "../libtorch/places.mjs";
import { example, toCommonJs } from "./blocks.mjs";
import { must, Report } from "./report.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const named = process.argv.slice(2).filter((word) => /^\d+$/.test(word));
const versions = named.length > 0 ? named : ["20", "22", "24"];
const tests = ["52-native", ...(process.argv.includes("--all") ? ["50-exit"] : [])];
const platform = `${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
const program = process.platform === "win32" ? "bin/node.exe" : "bin/node";
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const report = new Report();

/** The Node binary of a major version, from npm's package `node-<platform>`; kept in the cache folder. */
function fetchNode(version) {
  if (process.versions.node.startsWith(`${version}.`)) return process.execPath;
  const kept = join(cacheHome(), "node", `${platform}-${version}`, program);
  if (existsSync(kept)) return kept;
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-node-"));
  try {
    const [{ filename }] = JSON.parse(
      must(npm, ["pack", "--json", `node-${platform}@${version}`, "--pack-destination", folder], { cwd: folder }),
    );
    const temporary = `${kept}.${process.pid}`;
    mkdirSync(dirname(kept), { recursive: true });
    writeFileSync(temporary, fileIn(gunzipSync(readFileSync(join(folder, filename))), `package/${program}`), {
      mode: 0o755,
    });
    renameSync(temporary, kept);
    return kept;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One file of a tar archive. */
function fileIn(tar, wanted) {
  for (let at = 0; at + 512 <= tar.length; ) {
    const name = tar.toString("utf8", at, at + 100).replace(/\0.*$/s, "");
    const size = Number.parseInt(tar.toString("ascii", at + 124, at + 136), 8) || 0;
    if (name === wanted) return tar.subarray(at + 512, at + 512 + size);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  throw new Error(`${wanted} is not in the package`);
}

// The package without its local build, so that the prebuild is what is loaded.
const folder = mkdtempSync(join(tmpdir(), "cache to cache node "));
const installed = join(folder, "node_modules/cache-to-cache");
try {
  mkdirSync(installed, { recursive: true });
  for (const name of ["dist", "prebuilds", "scripts", "typings", "test/support.mjs", "package.json"])
    cpSync(join(home, name), join(installed, name), { recursive: true });
  for (const name of ["models", "node_modules"]) symlinkSync(join(home, name), join(installed, name), "junction");
  const code = example(join(home, "README.md"));
  writeFileSync(join(folder, "example.mjs"), code);
  writeFileSync(join(folder, "example.cjs"), toCommonJs(code));
  const { root } = JSON.parse(readFileSync(join(home, "build/libtorch.json"), "utf8"));
  const env = { ...process.env, CACHE_TO_CACHE_LIBTORCH: root, NODE_OPTIONS: "", OMP_WAIT_POLICY: "PASSIVE" };
  for (const version of versions) {
    let node;
    await report.step(`Node ${version}`, () => {
      node = fetchNode(version);
      const found = must(node, ["--version"]).trim();
      if (!found.startsWith(`v${version}.`)) throw new Error(`it is ${found}`);
      return `${found}, ${node}`;
    });
    if (node === undefined) continue;
    const doctor = () =>
      JSON.parse(must(node, [join(installed, "dist/cli/main.js"), "doctor", "--json"], { cwd: folder, env }));
    await report.step(`Node ${version}: doctor`, () => {
      const { binary, node: found } = doctor();
      if (binary.kind !== "prebuild") throw new Error(`a ${binary.kind} was loaded`);
      return `Node-API ${found.napi}`;
    });
    for (const [name, file] of [
      ["ESM", "example.mjs"],
      ["CommonJS", "example.cjs"],
    ]) {
      await report.step(`Node ${version}: README example, ${name}`, () => {
        const text = must(node, [file], { cwd: folder, env, quiet: true });
        if (!/first token after/.test(text)) throw new Error(`unexpected output: ${text}`);
      });
    }
    for (const test of tests) {
      await report.step(`Node ${version}: test ${test}`, () => {
        const file = join(installed, "test", `${test}.test.mjs`);
        cpSync(join(home, "test", `${test}.test.mjs`), file);
        must(node, [file], { cwd: installed, env });
      });
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report.end();
