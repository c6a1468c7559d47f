import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { inspect, MINOR, NO_VERSION, type Place, places } from "../../scripts/libtorch/places.mjs";
import { C2CError } from "../errors.js";
import { binaryFolders, HOME, PLATFORM } from "./binaries.js";
import { type Cuda, openCuda } from "./cuda.js";
import { type Loaded, loadNative, recordedRoot } from "./load.js";

/** Something that keeps the package from working (`error`) or that may surprise (`note`), and what helps. */
export interface Finding {
  readonly level: "error" | "note";
  readonly what: string;
  readonly fix: string | null;
}
/** What `doctor` found. */
export interface Diagnosis {
  readonly package: { readonly version: string; readonly folder: string };
  readonly node: {
    readonly version: string;
    readonly napi: string;
    readonly platform: string;
    readonly glibc: string | null;
  };
  /** The binary that was loaded, or null. */
  readonly binary: { readonly kind: "local build" | "prebuild"; readonly path: string } | null;
  /** Every binary that lies here for this platform. */
  readonly binaries: readonly string[];
  /** The libtorch that was loaded, or null. */
  readonly libtorch:
    | (Place & { readonly version: string; readonly variant: string | null; readonly threads: number })
    | null;
  /** Every place where libtorch was looked for. */
  readonly looked: readonly (Place & { readonly usable: boolean; readonly result: string })[];
  /** The CPU, and GPUs with what is known of them: whether they can be used, by which kernels. */
  readonly devices: readonly string[];
  readonly findings: readonly Finding[];
}

const OLDEST = [20, 19] as const;
const LOW_MEMORY = 4 * 2 ** 30;

/** Looks at everything the package stands on, and loads it if it can. Never throws. */
export function diagnose(): Diagnosis {
  const findings: Finding[] = [];
  const folders = binaryFolders();
  const looked = places(folders[0]?.kind === "local build" ? recordedRoot() : undefined).map((place) => {
    const found = inspect(place.root);
    const usable = found.fault === undefined || found.fault === NO_VERSION;
    return { ...place, usable, result: found.fault ?? `${found.version} (${found.variant})` };
  });
  const loaded = tryLoading(findings, folders.length > 0 && looked.every(({ usable }) => !usable));
  checkNode(findings);
  if (totalmem() < LOW_MEMORY)
    findings.push({ level: "note", what: "less than 4 GB of memory", fix: "choose models of well under that size" });
  if (folders.length > 1 && loaded?.kind === "local build")
    findings.push({
      level: "note",
      what: "the local build is used although there is a prebuild",
      fix: `delete ${join(HOME, "build/Release")} to use the prebuild`,
    });
  return {
    package: { version: manifestVersion(), folder: HOME },
    node: { version: process.versions.node, napi: process.versions.napi ?? "none", platform: PLATFORM, glibc: glibc() },
    binary: loaded ? { kind: loaded.kind, path: loaded.path } : null,
    binaries: folders.flatMap(({ addons }) => addons.map(({ path }) => path)),
    libtorch: loaded ? libtorchOf(loaded) : null,
    looked,
    devices: [processor(), ...(loaded ? gpus(openCuda(loaded)) : [])],
    findings,
  };
}

function tryLoading(findings: Finding[], without: boolean): Loaded | undefined {
  try {
    return loadNative();
  } catch (error) {
    if (error instanceof C2CError && error.code === "NATIVE_MISSING") {
      const { tried, fix } = (error as C2CError<"NATIVE_MISSING">).details;
      const last = tried.at(-1);
      const loading = last
        ? `the native part cannot be loaded: ${last.path}: ${last.cause}`
        : "the native part is missing";
      const what = without ? `libtorch ${MINOR} was not found` : loading;
      findings.push({ level: "error", what, fix: fix[0] ?? null });
    } else findings.push({ level: "error", what: String(error), fix: null });
    return undefined;
  }
}

function libtorchOf({ native, libtorch }: Loaded): NonNullable<Diagnosis["libtorch"]> {
  const { libtorch: version, threads } = native.info();
  return { ...libtorch, version, variant: inspect(libtorch.root).variant ?? null, threads };
}

function checkNode(findings: Finding[]): void {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return;
  findings.push({
    level: "error",
    what: `Node ${process.versions.node} is too old`,
    fix: "install Node 20.19 or newer",
  });
}

function processor(): string {
  const all = cpus();
  const flags = features();
  return `cpu: ${all[0]?.model.trim() ?? "unknown"}, ${all.length} threads${flags ? `, ${flags}` : ""}`;
}

/** GPUs that can be used; where there are none, those that the system shows, and why they cannot. */
export function gpus({ devices, fault }: Cuda, shown: readonly string[] = shownGpus()): string[] {
  if (fault !== null) return shown.map((gpu) => `NVIDIA GPU at ${gpu}: not used: ${fault}`);
  return devices.map(({ index, name, memory, kernels }) => {
    const what = name === "" ? "" : ` ${name}, ${Math.round(memory / 2 ** 30)} GiB,`;
    const how = kernels
      ? "by this package's kernels"
      : "by libtorch's operations alone: this binary has no kernels for it";
    return `cuda:${index}:${what} used ${how}`;
  });
}

function shownGpus(): string[] {
  const folder = "/proc/driver/nvidia/gpus";
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Instruction sets that decide how fast products are; bfloat16 without them is slow. */
function features(): string {
  try {
    const text = readFileSync("/proc/cpuinfo", "utf8");
    return ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16"]
      .filter((name) => new RegExp(`\\b${name}\\b`).test(text))
      .join(" ");
  } catch {
    return "";
  }
}

function glibc(): string | null {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime ?? null;
}

function manifestVersion(): string {
  const manifest = JSON.parse(readFileSync(join(HOME, "package.json"), "utf8")) as { readonly version: string };
  return manifest.version;
}
