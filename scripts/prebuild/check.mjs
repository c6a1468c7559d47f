// Checks what is to be published: prebuilds/linux-*/*.node. The last line is "N passed, N failed".
//   node scripts/prebuild/check.mjs [--strict]
// --strict fails on symbols newer than glibc 2.28 and GCC 8 have (cpp/compat/glibc.cpp is what keeps them out); without it
// they are printed and not judged.
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compareVersions, readElf } from "./elf.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const strict = process.argv.includes("--strict");
const OLDEST = { GLIBC: "2.28", GLIBCXX: "3.4.25", CXXABI: "1.3.11" };
const EXPORTS = ["napi_register_module_v1", "node_api_module_get_api_version_v1"];
const SYSTEM = /^(libc|libm|libdl|libpthread|libstdc\+\+|libgcc_s|ld-linux[-\w]*)\.so\.\d+$/;
const TORCH = /^(libtorch_cpu|libc10)\.so$|^libgomp[-\w]*\.so/;
/** Of an addon with kernels; never torch_cuda, which is opened with the first device. */
const CUDA = /^libc10_cuda\.so$|^libcudart\.so/;
let passed = 0;
let failed = 0;

function judge(file, what, fault) {
  if (fault) failed++;
  else passed++;
  console.log(`${fault ? "FAILED" : "ok    "} ${file}: ${what}${fault ? `: ${fault}` : ""}`);
}

function check(path) {
  const file = basename(path);
  const elf = readElf(path);
  if (elf === undefined) return judge(file, "readable", "readelf is missing or the file is no ELF binary");
  const isLoader = file === "loader.node";
  const allowed = (name) =>
    SYSTEM.test(name) || (!isLoader && (TORCH.test(name) || (/\.cu\d+\.node$/.test(file) && CUDA.test(name))));
  const foreign = elf.needed.filter((name) => !allowed(name));
  judge(file, isLoader ? "has no libtorch" : "needs libtorch and the system only", foreign.join(", "));
  judge(file, "run path is $ORIGIN", elf.runpath === "$ORIGIN" ? "" : `it is ${elf.runpath}`);
  const more = elf.exports.filter((name) => !EXPORTS.includes(name));
  const less = EXPORTS.filter((name) => !elf.exports.includes(name));
  judge(file, "exports Node's two symbols only", [...more, ...less.map((name) => `no ${name}`)].slice(0, 5).join(", "));
  judge(file, "stripped", elf.stripped ? "" : "it has a symbol table");
  const newer = Object.entries(OLDEST).flatMap(([family, most]) => {
    const found = elf.versions[family];
    if (found === undefined || compareVersions(found, most) <= 0) return [];
    const names = elf.versioned.filter(([, of, version]) => of === family && compareVersions(version, most) > 0);
    return [`${family}_${found} (${most} at most) for ${names.map(([name]) => name).join(", ")}`];
  });
  if (strict) judge(file, "runs on glibc 2.28", newer.join(", "));
  else if (newer.length > 0) console.log(`note   ${file}: needs ${newer.join(", ")}: not for publishing`);
}

const root = join(home, "prebuilds");
const folders = existsSync(root) ? readdirSync(root).filter((name) => name.startsWith("linux-")) : [];
for (const folder of folders) {
  const files = readdirSync(join(root, folder)).filter((name) => name.endsWith(".node"));
  judge(folder, "has a loader", files.includes("loader.node") ? "" : "it is missing");
  judge(folder, "has an addon", files.length > 1 ? "" : "it is missing");
  for (const name of files) check(join(root, folder, name));
  const other = readdirSync(join(root, folder)).filter((name) => !name.endsWith(".node"));
  judge(folder, "nothing else", other.join(", "));
}
if (folders.length === 0) judge("prebuilds", "there", "run `npm run prebuild` first");
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
