import { debuglog } from "node:util";
import { C2CError, type ErrorDetails } from "./errors.js";

const debug = debuglog("cache-to-cache");

/** The life of one handle: whether it is disposed, and what still runs on it. */
export class Life {
  readonly kind: ErrorDetails["DISPOSED"]["handle"];
  readonly #free: () => void;
  readonly #endings = new Set<() => void>();
  #running = 0;
  #waiting: (() => void)[] = [];
  #disposed = false;
  #freed = false;

  /** `free` gives the native side back; it runs once, after the last work in flight. */
  constructor(kind: ErrorDetails["DISPOSED"]["handle"], free: () => void) {
    this.kind = kind;
    this.#free = free;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** DISPOSED when it is. */
  check(): void {
    if (this.#disposed) {
      throw new C2CError("DISPOSED", { handle: this.kind }, `this ${this.kind} is disposed`);
    }
  }

  /** Calls `f` once, right after the handle is disposed of, unless what this returns is called before. */
  atEnd(f: () => void): () => void {
    this.#endings.add(f);
    return () => this.#endings.delete(f);
  }

  /** Work begins that keeps the native side alive until `leave` is called, once for each call of this. */
  enter(): void {
    this.#running += 1;
  }

  /** Work that has entered has ended. */
  leave(): void {
    this.#running -= 1;
    if (this.#running > 0 || !this.#disposed) {
      return;
    }
    this.#release();
    for (const resolve of this.#waiting.splice(0)) {
      resolve();
    }
  }

  /** Starts work that keeps the native side alive until it settles. */
  track<T>(work: Promise<T>): Promise<T> {
    this.enter();
    const leave = () => this.leave();
    work.then(leave, leave);
    return work;
  }

  /** Marks the handle as gone and frees it, at once or when the work in flight has ended. Repeating is harmless. */
  dispose(): Promise<void> {
    this.#disposed = true;
    this.#release();
    const endings = [...this.#endings];
    this.#endings.clear();
    for (const f of endings) {
      f();
    }
    return this.#running === 0 ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  #release(): void {
    if (!this.#freed && this.#running === 0) {
      this.#freed = true;
      this.#free();
    }
  }
}

/** The net under handles that were never disposed: frees them and, under NODE_DEBUG=cache-to-cache, says where they were made. */
const leaks = new FinalizationRegistry<{ readonly life: Life; readonly made: string | undefined }>(({ life, made }) => {
  debug("a %s was collected without dispose()%s", life.kind, made ? `; made${made}` : "");
  void life.dispose();
});

/** Puts a handle under the net. `life` must not refer to the handle. */
export function watch(handle: object, life: Life): void {
  const made = debug.enabled ? new Error().stack?.split("\n").slice(3).join("\n") : undefined;
  leaks.register(handle, { life, made }, life);
}

/** Takes a disposed handle from under the net. */
export function unwatch(life: Life): void {
  leaks.unregister(life);
}
