import { createHash, randomUUID } from "node:crypto";
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { writeAtomic } from "./atomic.js";

/** Whether a revision is a full commit hash. */
export function isCommit(revision: unknown): revision is string {
  return typeof revision === "string" && /^[0-9a-f]{40}$/.test(revision);
}

/** A blob's file name in the cache: the git or SHA-256 hash that the hub lists. */
export function blobName(hash: string | undefined): string {
  if (hash === undefined || !/^[0-9a-f]{16,}$/.test(hash)) throw new Error(`no usable hash: ${hash}`);
  return hash;
}

/** One repository in the hub's cache folder, in the layout that its Python client shares. */
export class HubCache {
  /** The repository's folder: refs, snapshots and blobs lie in it. */
  readonly folder: string;

  constructor(repo: string) {
    const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
    const home = HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
    this.folder = join(HF_HUB_CACHE ?? join(home, "hub"), `models--${repo.replace("/", "--")}`);
  }

  /** The folder of a commit's files. */
  snapshot(commit: string, folder: string): string {
    return join(this.folder, "snapshots", commit, folder);
  }

  /** The snapshot of a revision if all that `want` needs is there, else null. */
  async find(revision: string, want: "model" | "fuser", folder: string): Promise<string | null> {
    const commit = isCommit(revision) ? revision : (await readText(join(this.folder, "refs", revision)))?.trim();
    if (!isCommit(commit)) return null;
    const path = this.snapshot(commit, folder);
    return (await (want === "model" ? hasModel(path) : hasFuser(path))) ? path : null;
  }

  async hasBlob(name: string, size: number): Promise<boolean> {
    return (await sizeOf(join(this.folder, "blobs", name))) === size;
  }

  /**
   * Writes a blob under a temporary name and renames it once it is whole. Resolves to false when size or hash differ from what is
   * expected. Whatever goes wrong, nothing half-written stays.
   */
  async writeBlob(
    name: string,
    chunks: AsyncIterable<Uint8Array>,
    expected: { readonly size: number; readonly sha256: string | null },
    onBytes: (bytes: number) => void,
  ): Promise<boolean> {
    const path = join(this.folder, "blobs", name);
    const temporary = `${path}.${randomUUID()}.incomplete`;
    await mkdir(dirname(path), { recursive: true });
    try {
      const hash = createHash("sha256");
      let bytes = 0;
      const file = await open(temporary, "wx");
      try {
        for await (const chunk of chunks) {
          await file.writeFile(chunk);
          hash.update(chunk);
          bytes += chunk.byteLength;
          onBytes(bytes);
        }
        await file.sync();
      } finally {
        await file.close();
      }
      if (bytes !== expected.size) return false;
      if (expected.sha256 !== null && hash.digest("hex") !== expected.sha256) return false;
      await rename(temporary, path);
      return true;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  /** Makes a snapshot of blobs; config files come last and the ref after them: they say that the rest is there. */
  async link(
    commit: string,
    revision: string,
    files: readonly { readonly path: string; readonly blob: string }[],
  ): Promise<void> {
    const ordered = [...files].sort((a, b) => Number(isConfig(a.path)) - Number(isConfig(b.path)));
    for (const { path, blob } of ordered) {
      const target = join(this.folder, "blobs", blob);
      const link = join(this.folder, "snapshots", commit, path);
      await mkdir(dirname(link), { recursive: true });
      await rm(link, { force: true });
      try {
        await symlink(relative(dirname(link), target), link);
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "EPERM")) throw error;
        await copyFile(target, link);
      }
    }
    if (isCommit(revision)) return;
    const ref = join(this.folder, "refs", revision);
    await mkdir(dirname(ref), { recursive: true });
    await writeAtomic(ref, commit);
  }
}

function isConfig(path: string): boolean {
  return /(^|\/)([^/]*config|fuser)\.json$/.test(path);
}

async function hasModel(folder: string): Promise<boolean> {
  for (const name of ["config.json", "tokenizer.json"]) {
    if ((await sizeOf(join(folder, name))) === null) return false;
  }
  if ((await sizeOf(join(folder, "model.safetensors"))) !== null) return true;
  const index = await readText(join(folder, "model.safetensors.index.json"));
  if (index === null) return false;
  const { weight_map = {} } = JSON.parse(index) as { readonly weight_map?: Readonly<Record<string, string>> };
  for (const shard of new Set(Object.values(weight_map))) {
    if ((await sizeOf(join(folder, shard))) === null) return false;
  }
  return true;
}

async function hasFuser(folder: string): Promise<boolean> {
  let names: readonly string[];
  try {
    names = await readdir(folder, { recursive: true });
  } catch {
    return false;
  }
  const projectors = names.filter((name) => /projector_\d+\.json$/.test(name));
  if (projectors.length === 0) return names.some((name) => name.endsWith(".safetensors"));
  const whole = projectors.every((name) => names.includes(name.replace(/json$/, "pt")));
  return whole && names.some((name) => name.endsWith("projector_config.json"));
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return null;
  }
}

async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch {
    return null;
  }
}
