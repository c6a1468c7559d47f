// Everything between a fresh clone and a working package: npm dependencies, libtorch, the native build, TypeScript.
// Needs Node alone. Steps whose input did not change are skipped.
//   node scripts/setup.mjs [--quiet] [--tests] [--bench]     --tests, --bench: build those C++ programs too
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { findLibtorch } from "./libtorch/find.mjs";
import { locked } from "./lock.mjs";
import { capture, Failure, output, reconfigure, run } from "./process.mjs";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const build = join(home, "build");
const stampFile = join(build, "stamps.json");
const quiet = process.argv.includes("--quiet");
const tests = process.argv.includes("--tests");
const bench = process.argv.includes("--bench");
const STEPS = 4;

/** Says what a step came to; `--quiet` leaves out steps that had nothing to do. */
function report(step, name, message, since, idle) {
  if (quiet && idle) return;
  process.stderr.write(
    `[${step}/${STEPS}] ${name}: ${message} (${((performance.now() - since) / 1000).toFixed(1)} s)\n`,
  );
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

function writeStamp(name, value) {
  mkdirSync(build, { recursive: true });
  writeFileSync(stampFile, `${JSON.stringify({ ...readJson(stampFile), [name]: value }, null, 2)}\n`);
}

/** Names, sizes and times of files and of what is in folders. */
function fingerprint(paths, ...more) {
  const hash = createHash("sha256").update(more.join("\0"));
  const names = [];
  const visit = (path) => {
    if (!existsSync(path)) return;
    const stat = statSync(path);
    if (stat.isDirectory()) {
      for (const name of readdirSync(path).sort()) visit(join(path, name));
    } else {
      names.push(relative(home, path));
      hash.update(`${relative(home, path)}\0${stat.size}\0${stat.mtimeMs}\0`);
    }
  };
  for (const path of paths) visit(join(home, path));
  return { content: hash.digest("hex"), names: createHash("sha256").update(names.join("\0")).digest("hex") };
}

/** True when node_modules holds what the lock file asks for. */
function dependenciesFit() {
  const wanted = readJson(join(home, "package-lock.json"))?.packages;
  const installed = readJson(join(home, "node_modules/.package-lock.json"))?.packages;
  if (!wanted || !installed) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "" || entry.link) return true;
    const found = installed[path];
    if (!found) return entry.optional === true || entry.peer === true;
    return found.version === entry.version && existsSync(join(home, path));
  });
}

function dependencies() {
  const since = performance.now();
  // An installed package has its dependencies beside it and no lock file of its own.
  if (!existsSync(join(home, "package-lock.json")))
    return report(1, "npm dependencies", "installed with the package", since, true);
  if (dependenciesFit()) return report(1, "npm dependencies", "unchanged", since, true);
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  // Not `npm ci`: it refuses a lock file that lacks other platforms' optional packages, and some registries hide those.
  const result = run(npm, ["install", "--no-audit", "--no-fund"], { cwd: home });
  if (result.missing)
    throw new Failure("npm is not on PATH: install it with Node (https://nodejs.org), then run this again.");
  if (!result.ok)
    throw new Failure(
      "npm could not install the dependencies: check the network or the npm registry settings, then run this again.",
    );
  report(1, "npm dependencies", "installed", since, false);
}

async function libtorch() {
  const since = performance.now();
  const record = join(build, "libtorch.json");
  const found = await findLibtorch({ previous: readJson(record) });
  const text = `${JSON.stringify(found, null, 2)}\n`;
  if (!existsSync(record) || readFileSync(record, "utf8") !== text) {
    mkdirSync(build, { recursive: true });
    writeFileSync(record, text);
  }
  report(2, "libtorch", `${found.version} from ${found.source}, ${found.root}`, since, !found.fresh);
  return found.root;
}

/** The tools a native build needs; each absence is one sentence. Returns the CMake generator that cmake-js takes for them. */
function checkTools() {
  const compiler = process.env.CXX ? [process.env.CXX] : ["c++", "g++", "clang++"];
  if (!compiler.some((name) => capture(name, ["--version"]) !== undefined)) {
    throw new Failure(
      "No C++ compiler was found: install one with C++20 (Debian/Ubuntu: apt-get install g++; macOS: xcode-select --install), or set CXX.",
    );
  }
  const cmake = capture("cmake", ["--version"]);
  const [, major = 0, minor = 0] = /version (\d+)\.(\d+)/.exec(cmake ?? "") ?? [];
  if (cmake === undefined || Number(major) * 1000 + Number(minor) < 3025) {
    const found = cmake === undefined ? "was not found" : `is ${major}.${minor} here`;
    throw new Failure(
      `cmake 3.25 or newer is needed and ${found}: install it (apt-get install cmake, brew install cmake, or pip install cmake).`,
    );
  }
  const builder = ["ninja", "make"].find((name) => capture(name, ["--version"]) !== undefined);
  if (builder === undefined) {
    throw new Failure("Neither ninja nor make was found: install one (Debian/Ubuntu: apt-get install ninja-build).");
  }
  return builder === "ninja" ? "Ninja" : "Unix Makefiles";
}

function native(root) {
  const since = performance.now();
  const programs = [...(tests ? ["test/cpp"] : []), ...(bench ? ["bench/cpp"] : [])];
  const print = (folders) => fingerprint(["cpp", "CMakeLists.txt", ...folders], root, process.arch).content;
  const key = ["native", ...programs].join(" ");
  const stamp = print(programs);
  const built = ["loader", "cache_to_cache"].every((name) => existsSync(join(build, "Release", `${name}.node`)));
  const stamps = readJson(stampFile) ?? {};
  if (built && stamps[key] === stamp) return report(3, "native build", "unchanged", since, true);
  const generator = checkTools();
  reconfigure(build, process.platform === "win32" ? {} : { CMAKE_GENERATOR: generator });
  const script = join(home, "node_modules/cmake-js/bin/cmake-js");
  const [command, prefix] = existsSync(script) ? [process.execPath, [script]] : ["npx", ["--yes", "cmake-js@8"]];
  const cmakeJs = (...args) => {
    const result = run(command, [...prefix, ...args, "--out", build, "--log-level", "warn"], {
      cwd: home,
      env: { ...process.env, CMAKE_BUILD_PARALLEL_LEVEL: process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? "2" },
    });
    if (!result.ok)
      throw new Failure(`The native build failed (cmake-js ${args[0]}): the first error above says where.`);
  };
  cmakeJs(
    "configure",
    `--CDTORCH_ROOT=${root}`,
    `--CDC2C_TESTS=${tests ? "ON" : "OFF"}`,
    `--CDC2C_BENCH=${bench ? "ON" : "OFF"}`,
  );
  cmakeJs("build");
  writeStamp(key, stamp);
  // Every build makes the addon too.
  if (programs.length > 0) writeStamp("native", print([]));
  report(3, "native build", programs.length > 0 ? `built, with ${programs.join(" and ")}` : "built", since, false);
}

function typescript() {
  const since = performance.now();
  if (!existsSync(join(home, "lib"))) return report(4, "TypeScript", "built with the package", since, true);
  const { content, names } = fingerprint(["lib", "typings", "tsconfig.json"]);
  const dist = join(home, "dist");
  const stamps = readJson(stampFile) ?? {};
  if (existsSync(dist) && stamps.typescript === content) return report(4, "TypeScript", "unchanged", since, true);
  if (!existsSync(dist) || stamps["typescript files"] !== names) {
    // Leaves nothing behind of sources that are gone.
    rmSync(dist, { recursive: true, force: true });
    rmSync(join(build, "tsconfig.tsbuildinfo"), { force: true });
  }
  const result = run(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), "-p", home], { cwd: home });
  if (!result.ok) throw new Failure("TypeScript found errors: they are listed above.");
  writeStamp("typescript", content);
  writeStamp("typescript files", names);
  report(4, "TypeScript", "built", since, false);
}

try {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  await locked(join(build, "setup.lock"), async () => {
    dependencies();
    const root = await libtorch();
    native(root);
    typescript();
  });
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  output(error.message);
  process.exitCode = 1;
}
