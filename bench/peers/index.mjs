// Programs that do the same work. Each is optional: what is not given is named in the table's notes.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

function python(script, module, job, given, extra = {}) {
  if (!given.python) return { missing: "not given (--python)" };
  const version = versionOf(given.python, module);
  if (!version) return { missing: `${module} is not in ${given.python}` };
  return { command: given.python, args: [here(script), JSON.stringify({ ...job, ...extra })], version };
}

const versions = new Map();
function versionOf(command, module) {
  const key = `${command} ${module}`;
  if (!versions.has(key)) {
    const code = `import importlib.metadata as m; print(m.version(${JSON.stringify(module)}))`;
    try {
      versions.set(
        key,
        execFileSync(command, ["-c", code], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim(),
      );
    } catch {
      versions.set(key, null);
    }
  }
  return versions.get(key);
}

/** The version of a package that is installed in the folder of an option. */
function installed(option, name, given) {
  if (!given[option]) return { missing: `not given (--${option})` };
  const manifest = join(given[option], "node_modules", name, "package.json");
  if (!existsSync(manifest)) return { missing: `${name} is not installed in ${given[option]}` };
  return { version: JSON.parse(readFileSync(manifest, "utf8")).version };
}

/** A peer of Node: its trial on a file that Python writes with `module` where it is missing. */
function node(option, name, trial, { file, module, writer }, job, given) {
  const { missing, version } = installed(option, name, given);
  if (missing) return { missing };
  if (!existsSync(file)) {
    if (!given.python || !versionOf(given.python, module)) return { missing: `its file needs --python with ${module}` };
    const [script, ...args] = writer;
    execFileSync(given.python, [here(script), ...args], { stdio: "inherit" });
  }
  const args = [here(trial), JSON.stringify({ ...job, file, folder: given[option] })];
  return { command: process.execPath, args, version };
}

function llama(kind, job, given) {
  const file = join(job.models, `receiver-${kind}.gguf`);
  const writer = ["write_gguf.py", join(job.models, "receiver-bfloat16"), file, kind];
  return node("llama", "node-llama-cpp", "llama.mjs", { file, module: "gguf", writer }, job, given);
}

function onnx(job, given) {
  const folder = join(job.models, `${job.suite === "fusion" ? `fuser-${job.variant}` : "receiver"}-${job.dtype}`);
  const file = `${folder}-${job.suite}.onnx`;
  const writer = ["write_onnx.py", job.suite, folder, file];
  return node("onnx", "onnxruntime-node", "onnx.mjs", { file, module: "onnx", writer }, job, given);
}

const peers = {
  eager: (job, given) => python("eager.py", "torch", job, given),
  transformers: (job, given) => python("transformers_peer.py", "transformers", job, given),
  onnxruntime: onnx,
  "llama.cpp BF16": (job, given) => llama("BF16", job, given),
  "llama.cpp Q8_0": (job, given) => llama("Q8_0", job, given),
  "llama.cpp Q4_0": (job, given) => llama("Q4_0", job, given),
  reference: (job, given) =>
    given.reference
      ? python("reference.py", "transformers", job, given, { clone: given.reference })
      : { missing: "not given (--reference)" },
};

/** { command, args, version } of a peer's trial, or { missing: why }. */
export async function findPeer(name, job, given) {
  return peers[name](job, given);
}
