import { access, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import type { Fuser } from "../index.js";

/**
 * The folder of `train`: while training runs, `training/` with its checkpoints; in the end the fuser, as a folder that `loadFuser` and,
 * in its own layout, the reference read.
 */
export class TrainOutput {
  readonly #folder: string;
  /** Where trainFuser keeps its checkpoints. */
  readonly run: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.run = join(folder, "training");
  }

  /** Whether the fuser is there and nothing is left to be done. */
  async finished(): Promise<boolean> {
    return (await there(join(this.#folder, "final"))) && !(await there(this.run));
  }

  /** Writes the fuser beside its checkpoints, then moves it into its place. A run that is killed in between publishes again. IO_FAILED. */
  async publish(fuser: Fuser, format: "native" | "reference"): Promise<void> {
    const written = join(this.run, "fuser");
    const [final, recipe] = [join(this.#folder, "final"), join(this.#folder, "config.json")];
    await fuser.save(written, { format });
    try {
      await rm(final, { recursive: true, force: true });
      await rm(recipe, { force: true });
      if (format === "reference") await rename(join(written, "config.json"), recipe);
      await rename(format === "reference" ? join(written, "final") : written, final);
    } catch (error) {
      throw ioError(error, this.#folder, "write");
    }
  }

  /** Removes the checkpoints: the run is over. IO_FAILED. */
  async close(): Promise<void> {
    try {
      await rm(this.run, { recursive: true, force: true });
    } catch (error) {
      throw ioError(error, this.run, "remove");
    }
  }
}

async function there(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
