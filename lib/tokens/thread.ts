import { Worker, type WorkerOptions } from "node:worker_threads";
import { C2CError } from "../errors.js";
import type { PlainError, Reply, Request } from "./worker.js";

interface Pending {
  resolve(reply: Reply): void;
  reject(error: unknown): void;
}

function revive(error: PlainError): Error {
  if (error.code !== null && error.details !== null) return new C2CError(error.code, error.details, error.message);
  return new Error(error.message);
}

/** A thread that starts when it is asked something, and keeps the process alive only while a reply is due. */
export class Thread {
  #worker: Worker | null = null;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();
  readonly #options: WorkerOptions;
  readonly #stays: boolean;
  readonly #started: () => void;

  /** `stays`: it waits for more once all is answered, instead of ending. `started` is called whenever it starts anew, knowing nothing. */
  constructor(options: WorkerOptions, stays: boolean, started: () => void = () => undefined) {
    this.#options = options;
    this.#stays = stays;
    this.#started = started;
  }

  get running(): boolean {
    return this.#worker !== null;
  }

  /** Starts it where it does not run. */
  start(): Worker {
    if (this.#worker) return this.#worker;
    const started = new Worker(new URL("./worker.js", import.meta.url), { execArgv: [], ...this.#options });
    started.on("message", (reply: Reply) => this.#settle(reply));
    started.on("error", (error) => this.#lost(started, error));
    started.on("exit", (code) => this.#lost(started, new Error(`the tokenizer thread stopped (exit code ${code})`)));
    started.unref();
    this.#worker = started;
    this.#started();
    return started;
  }

  /** A message without a reply. */
  tell(request: Request): void {
    this.start().postMessage(request);
  }

  ask(make: (id: number) => Request): Promise<Reply> {
    const worker = this.start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage(make(id));
    });
  }

  #settle(reply: Reply): void {
    const entry = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    if (this.#pending.size === 0) this.#rest();
    if (reply.kind === "failed") entry?.reject(revive(reply.error));
    else entry?.resolve(reply);
  }

  #rest(): void {
    this.#worker?.unref();
    if (this.#stays) return;
    void this.#worker?.terminate();
    this.#worker = null;
  }

  /** Every waiting request fails; the next one starts a new thread. */
  #lost(gone: Worker, cause: unknown): void {
    if (this.#worker !== gone) return;
    this.#worker = null;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const entry of waiting) entry.reject(cause);
  }
}
