import { posix } from "node:path";
import { downloadFile, HubApiError, type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub";
import { C2CError, ioError } from "../errors.js";
import type { Source } from "../types.js";
import { blobName, HubCache, isCommit } from "./hub-cache.js";
import type { ResolveOptions } from "./source.js";

type HubSource = Extract<Source, { kind: "hub" }>;

const MODEL_FILES =
  /^(config|generation_config|special_tokens_map|tokenizer[^/]*|chat_template[^/]*|[^/]*\.index)\.json$/;
const MODEL_OTHERS = /^(chat_template[^/]*|[^/]*\.safetensors)$/;
const FUSER_FILES = /\.(json|pt|safetensors)$/;

/**
 * The snapshot folder of a repository in the hub's cache (HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub), at
 * `source.folder` where given. A complete snapshot is used without the network. HF_HUB_OFFLINE, HF_TOKEN and HF_ENDPOINT count.
 */
export async function resolveHub(source: HubSource, want: "model" | "fuser", options: ResolveOptions): Promise<string> {
  const { repo, revision = "main", folder = "" } = source;
  checkPath("repo", repo, /^[\w.-]+\/[\w.-]+$/);
  checkPath("revision", revision, /^[^\s\\]+$/);
  if (folder !== "") checkPath("folder", folder, /^[^\\]+$/);
  const cache = new HubCache(repo);
  const cached = await cache.find(revision, want, folder);
  if (cached) return cached;
  if (/^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? "")) {
    throw failed(repo, folder, null, "not in the cache, and HF_HUB_OFFLINE is set");
  }
  try {
    return await download(source, want, cache, options);
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    if (error instanceof C2CError) throw error;
    if (error instanceof HubApiError) throw failed(repo, folder, error.statusCode, describe(error.statusCode), error);
    const io = ioError(error, cache.folder, "write");
    throw io === error ? failed(repo, folder, null, "no answer from the hub", error) : io;
  }
}

async function download(
  source: HubSource,
  want: "model" | "fuser",
  cache: HubCache,
  { signal, onProgress }: ResolveOptions,
): Promise<string> {
  const { repo, revision = "main", folder = "" } = source;
  const access = {
    fetch: (input: Parameters<typeof fetch>[0], init?: RequestInit) =>
      fetch(input, signal ? { ...init, signal } : init),
    ...(process.env.HF_ENDPOINT ? { hubUrl: process.env.HF_ENDPOINT.replace(/\/$/, "") } : {}),
    ...(process.env.HF_TOKEN ? { accessToken: process.env.HF_TOKEN } : {}),
  };
  const { sha } = await modelInfo({ name: repo, revision, additionalFields: ["sha"], ...access });
  if (!isCommit(sha)) throw failed(repo, folder, null, "the hub names no commit");

  const files: ListFileEntry[] = [];
  for await (const entry of listFiles({ repo, revision: sha, recursive: true, ...access })) {
    if (entry.type === "file" && isNeeded(entry.path, want, folder)) files.push(entry);
  }
  if (files.length === 0) throw failed(repo, folder, 404, `it holds no ${want} here`);

  for (const { path, size, lfs, oid } of files) {
    checkPath("repo", path, /^[^\\]+$/);
    const name = blobName(lfs?.oid ?? oid);
    if (await cache.hasBlob(name, lfs?.size ?? size)) continue;
    let blob: Blob | null;
    try {
      blob = await downloadFile({ repo, path, revision: sha, ...access });
    } catch (error) {
      if (error instanceof HubApiError) throw failed(repo, path, error.statusCode, describe(error.statusCode), error);
      throw error;
    }
    if (!blob) throw failed(repo, path, 404, describe(404));
    const expected = { size: lfs?.size ?? size, sha256: lfs?.oid ?? null };
    const whole = await cache.writeBlob(name, blob.stream(), expected, (bytes) =>
      onProgress?.({ phase: "download", file: path, bytes, total: expected.size }),
    );
    if (!whole) throw failed(repo, path, null, "what arrived is not the file the hub lists");
    signal?.throwIfAborted();
  }
  await cache.link(
    sha,
    revision,
    files.map(({ path, lfs, oid }) => ({ path, blob: blobName(lfs?.oid ?? oid) })),
  );
  return cache.snapshot(sha, folder);
}

function isNeeded(path: string, want: "model" | "fuser", folder: string): boolean {
  const inside = folder === "" ? path : path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : null;
  if (want === "model") return inside !== null && (MODEL_FILES.test(inside) || MODEL_OTHERS.test(inside));
  if (inside !== null) return FUSER_FILES.test(inside);
  return path === posix.join(posix.dirname(folder), "config.json");
}

function checkPath(option: string, value: string, allowed: RegExp): void {
  const safe = allowed.test(value) && !value.startsWith("/") && !value.split("/").includes("..");
  if (!safe)
    throw new C2CError("OPTION_INVALID", { option, reason: `${JSON.stringify(value)} is not a name on the hub` });
}

function describe(status: number): string {
  if (status === 401 || status === 403) return `access denied (${status}); set HF_TOKEN`;
  if (status === 404) return "not found (404)";
  return `the hub answered ${status}`;
}

function failed(repo: string, file: string, status: number | null, reason: string, cause?: unknown): C2CError {
  const what = file === "" ? repo : `${repo}: ${file}`;
  return new C2CError("DOWNLOAD_FAILED", { repo, file, status }, `${what}: ${reason}`, { cause });
}
