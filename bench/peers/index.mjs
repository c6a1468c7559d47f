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

function llama(kind, job, given) {
  if (!given.llama) return { missing: "not given (--llama)" };
  const manifest = join(given.llama, "node_modules/node-llama-cpp/package.json");
  if (!existsSync(manifest)) return { missing: `node-llama-cpp is not installed in ${given.llama}` };
  const file = join(job.models, `receiver-${kind}.gguf`);
  if (!existsSync(file)) {
    if (!given.python || !versionOf(given.python, "gguf")) return { missing: "its file needs --python with gguf" };
    execFileSync(given.python, [here("write_gguf.py"), join(job.models, "receiver-bfloat16"), file, kind], {
      stdio: "inherit",
    });
  }
  const { version } = JSON.parse(readFileSync(manifest, "utf8"));
  return {
    command: process.execPath,
    args: [here("llama.mjs"), JSON.stringify({ ...job, file, folder: given.llama })],
    version,
  };
}

const peers = {
  eager: (job, given) => python("eager.py", "torch", job, given),
  transformers: (job, given) => python("transformers_peer.py", "transformers", job, given),
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
