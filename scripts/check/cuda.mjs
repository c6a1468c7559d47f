// Compiles what runs on GPUs (cpp/kernels/cuda and cpp/cuda) to object files and looks for both architectures in them; runs
// none of it. The last line is "N passed, N failed"; what could not be compiled is said and counts as neither.
//   npm run check:cuda [-- --torch FOLDER]        FOLDER: a PyTorch for CUDA; default: fetched by pip, kept in the cache folder
import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pipDownload } from "../libtorch/pip.mjs";
import { home as cacheHome } from "../libtorch/places.mjs";
import { unzip } from "../libtorch/unzip.mjs";
import { capture, Failure, run } from "../process.mjs";
import { architectures } from "./fatbin.mjs";
import { Report } from "./report.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const build = join(home, "build/cuda-check");
/** Ampere and Hopper; newer ones are made of the last one's PTX. */
const WANTED = [80, 90];
/** One file, whichever Python runs here: its headers are all that is used. */
const WHEEL = {
  version: "2.14.1",
  tags: ["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"],
  sha256: "305a61f61f35f128579f299c5bd33d475f6a01c6307336139632e30856c4854d",
};

/** The folder of a PyTorch for CUDA with its headers. Throws Failure where it cannot be had. */
async function findTorch(named) {
  if (named !== undefined) {
    if (!existsSync(join(named, "include/c10/cuda/CUDAStream.h")))
      throw new Failure(`${named} has no headers for CUDA`);
    return named;
  }
  const kept = join(cacheHome(), `libtorch-${WHEEL.version}-cuda-headers`);
  if (existsSync(kept)) return kept;
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-pip-"));
  mkdirSync(cacheHome(), { recursive: true });
  const root = mkdtempSync(`${kept}.`);
  try {
    const wheel = pipDownload(`torch==${WHEEL.version}`, folder, ...WHEEL.tags);
    if (wheel === undefined) throw new Failure(`pip could not download torch==${WHEEL.version}`);
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(wheel)) hash.update(chunk);
    const digest = hash.digest("hex");
    if (digest !== WHEEL.sha256) throw new Failure(`${wheel} has SHA-256 ${digest} instead of ${WHEEL.sha256}`);
    await unzip(wheel, root, (name) => (name.startsWith("torch/include/") ? name.slice("torch/".length) : undefined));
    renameSync(root, kept);
    return kept;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(root, { recursive: true, force: true });
  }
}

/** Configures a new build; libraries are named, not looked for: nothing is linked. */
function configure(root) {
  rmSync(build, { recursive: true, force: true });
  const library = (name) => join(root, "lib", `lib${name}.so`);
  const libraries = Object.entries({
    TORCH_CPU: "torch_cpu",
    C10: "c10",
    TORCH_CUDA: "torch_cuda",
    C10_CUDA: "c10_cuda",
  });
  const generator = capture("ninja", ["--version"]) === undefined ? [] : ["-G", "Ninja"];
  const { ok } = run("cmake", [
    ...["-S", home, "-B", build, ...generator, `-DTORCH_ROOT=${root}`, "-DC2C_CUDA=ON", "-DC2C_ADDON=OFF"],
    ...libraries.map(([name, file]) => `-DC2C_${name}=${library(file)}`),
  ]);
  if (!ok) throw new Error("cmake could not configure: what it said stands above");
}

function compile(target) {
  if (!run("cmake", ["--build", build, "--target", target, "--parallel", "2"]).ok)
    throw new Error("the compiler's words stand above");
}

/** Object files of a target, by their sources. */
function objects(target) {
  const folder = join(build, "CMakeFiles", `${target}.dir`);
  return readdirSync(folder, { recursive: true })
    .filter((name) => /\.(o|obj)$/.test(name))
    .sort()
    .map((name) => ({ source: relative(".", name).replace(/\.(o|obj)$/, ""), path: join(folder, name) }));
}

function sources(folder, extension) {
  return readdirSync(join(home, folder)).filter((name) => name.endsWith(extension) && name !== "absent.cpp");
}

const { values } = parseArgs({ options: { torch: { type: "string" } } });
const missing = (why) => {
  console.log(`not compiled: ${why}`);
  console.log("0 passed, 0 failed");
};
if (capture(process.env.CUDACXX ?? "nvcc", ["--version"]) === undefined) missing("no nvcc");
else {
  const root = await findTorch(values.torch).catch((error) => {
    if (!(error instanceof Failure)) throw error;
    return error;
  });
  if (root instanceof Failure) missing(`no PyTorch for CUDA: ${root.message}`);
  else await check(root);
}

async function check(root) {
  const report = new Report();
  await report.step("configured", () => configure(root));
  for (const [target, folder, extension] of [
    ["c2c_cuda_kernels", "cpp/kernels/cuda", ".cu"],
    ["c2c_cuda", "cpp/cuda", ".cpp"],
  ]) {
    await report.step(`${folder} compiles`, () => {
      compile(target);
      const made = objects(target).length;
      const there = sources(folder, extension).length;
      if (there === 0 || made !== there) throw new Error(`${made} object files of ${there} sources`);
      return `${made} files`;
    });
  }
  for (const { source, path } of existsSync(build) ? objects("c2c_cuda_kernels") : []) {
    await report.step(`${source}: ${WANTED.map((arch) => `sm_${arch}`).join(" and ")}`, () => {
      const code = architectures(readFileSync(path)).filter(({ kind }) => kind === "elf");
      const less = WANTED.filter((wanted) => !code.some(({ arch }) => arch === wanted));
      if (less.length > 0) throw new Error(`no machine code for ${less.map((arch) => `sm_${arch}`).join(", ")}`);
    });
  }
  report.end();
}
