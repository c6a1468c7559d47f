import { createHash } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import { writeAtomic } from "../weights/atomic.js";
import { parseObject, readTextIfThere } from "../weights/file.js";

/** What a stage came to. */
export interface Done<T> {
  readonly result: T;
  /** How long it took since it was last begun. */
  readonly seconds: number;
  /** Fingerprint of everything that the result follows from. */
  readonly key: string;
}

/** What a stage follows from. */
export interface Inputs {
  /** JSON; a stage that follows from another one has its key in here. */
  readonly from: unknown;
  /** Where the stage keeps its files; removed when they follow from something else. */
  readonly folder?: string;
}

/**
 * The stages of a build. Each runs once: its result, which must be JSON, is written whole when it is done, and read by whoever asks
 * for it again. One that was begun goes on; one that follows from something else now is run anew, and so are those after it.
 */
export class Stages {
  readonly #folder: string;
  readonly #ended: (name: string, seconds: number) => void;

  private constructor(folder: string, ended: (name: string, seconds: number) => void) {
    this.#folder = folder;
    this.#ended = ended;
  }

  /** Opens a build's folder. `ended` hears of each stage that has run. IO_FAILED. */
  static async open(folder: string, ended: (name: string, seconds: number) => void = () => undefined): Promise<Stages> {
    const stages = join(folder, "stages");
    try {
      await mkdir(stages, { recursive: true });
    } catch (error) {
      throw ioError(error, stages, "mkdir");
    }
    return new Stages(stages, ended);
  }

  /** The result of a stage, which is run if it has not been. IO_FAILED, FILE_INVALID; what the work throws. */
  async run<T>(name: string, { from, folder }: Inputs, work: () => Promise<T>): Promise<Done<T>> {
    const path = join(this.#folder, `${name}.json`);
    const key = createHash("sha256").update(JSON.stringify(from)).digest("hex").slice(0, 16);
    const text = await readTextIfThere(path);
    const before = text === null ? null : parseObject(text, path);
    if (before?.["key"] === key && "result" in before) return before as unknown as Done<T>;
    if (before?.["key"] !== key) {
      if (folder !== undefined) await rm(folder, { recursive: true, force: true });
      await writeAtomic(path, `${JSON.stringify({ key, from }, null, 2)}\n`);
    }
    const began = performance.now();
    const result = await work();
    const seconds = (performance.now() - began) / 1000;
    await writeAtomic(path, `${JSON.stringify({ key, result, seconds, from }, null, 2)}\n`);
    this.#ended(name, seconds);
    return { key, result, seconds };
  }
}
