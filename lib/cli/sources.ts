import { statSync } from "node:fs";
import {
  C2CError,
  type Device,
  type Fuser,
  type Link,
  type LoadEvent,
  loadFuser,
  loadModel,
  type Model,
  type Source,
} from "../index.js";
import { Progress } from "./progress.js";

/**
 * Reads `folder` (one that exists, or a path that begins with "/" or ".") or `owner/name[@revision][:folder]` (a repository
 * on the hub). Errors: OPTION_INVALID.
 */
export function parseSource(text: string): Source {
  if (/^[./]/.test(text) || statSync(text, { throwIfNoEntry: false })) return { kind: "folder", path: text };
  const [, owner, name, revision, folder] = /^([\w.-]+)\/([\w.-]+)(?:@([^:\s]+))?(?::(\S+))?$/.exec(text) ?? [];
  if (!owner || !name || owner.startsWith(".")) {
    const reason = `${JSON.stringify(text)} is neither a folder nor owner/name[@revision][:folder]`;
    throw new C2CError("OPTION_INVALID", { option: "source", reason }, reason);
  }
  return { kind: "hub", repo: `${owner}/${name}`, ...(revision ? { revision } : {}), ...(folder ? { folder } : {}) };
}

/** Runs a load with a progress bar on stderr. */
export async function withProgress<T>(
  label: string,
  load: (onProgress: (event: LoadEvent) => void) => Promise<T>,
): Promise<T> {
  using bar = new Progress();
  return await load((event) => {
    if (event.phase === "download") bar.show(`${label}: ${event.file}`, event.bytes / Math.max(event.total, 1));
    else bar.show(`${label}: weights`, event.tensors / Math.max(event.of, 1));
  });
}

/** The options that name models. */
export interface ModelOptions {
  readonly receiver: string;
  readonly sharer: readonly string[];
  readonly fuser: readonly string[];
  readonly align?: Link["align"];
  readonly span?: Link["span"];
  /** Of all models and, with the receiver, of fusers. */
  readonly device?: Device;
}

/** A receiver with its links, loaded; disposes all of them. */
export interface LoadedLinks extends AsyncDisposable {
  readonly receiver: Model;
  readonly links: readonly Link[];
}

/** Loads a receiver and, pair by pair, its sharers and fusers. Errors: OPTION_INVALID when their numbers differ. */
export async function loadLinks(
  { receiver: from, sharer, fuser, align, span, device }: ModelOptions,
  signal?: AbortSignal,
): Promise<LoadedLinks> {
  if (sharer.length !== fuser.length) {
    const reason = `${sharer.length} sharers and ${fuser.length} fusers: each sharer needs one`;
    throw new C2CError("OPTION_INVALID", { option: "fuser", reason }, reason);
  }
  const loaded: (Model | Fuser)[] = [];
  const dispose = async (): Promise<void> => {
    for (const handle of loaded.reverse()) await handle.dispose();
  };
  const abort = signal ? { signal } : {};
  try {
    const model = async (text: string): Promise<Model> => {
      const where = device ? { device } : {};
      const handle = await withProgress(text, (onProgress) =>
        loadModel(parseSource(text), { ...abort, ...where, onProgress }),
      );
      loaded.push(handle);
      return handle;
    };
    const receiver = await model(from);
    const links: Link[] = [];
    for (const [i, text] of sharer.entries()) {
      const other = await model(text);
      const path = fuser[i] ?? "";
      const handle = await withProgress(path, (onProgress) =>
        loadFuser(parseSource(path), { receiver, sharer: other }, { ...abort, onProgress }),
      );
      loaded.push(handle);
      links.push({ sharer: other, fuser: handle, ...(align ? { align } : {}), ...(span ? { span } : {}) });
    }
    return { receiver, links, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
