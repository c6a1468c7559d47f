import { join } from "node:path";
import { type Command, Option } from "commander";
import { choose, findLibtorch } from "../../scripts/libtorch/find.mjs";
import { home, VARIANTS } from "../../scripts/libtorch/places.mjs";
import { locked } from "../../scripts/lock.mjs";
import { Failure, run } from "../../scripts/process.mjs";
import { binaryFolders, HOME, PLATFORM } from "../setup/binaries.js";
import { diagnose } from "../setup/diagnose.js";
import { formatDiagnosis } from "./doctor.js";

interface Flags {
  readonly variant: string;
  readonly force?: boolean;
  readonly build?: boolean;
}

/** `setup`: what an installed package needs beside itself. The same steps as the set-up of a clone, from the same code. */
export function addSetup(program: Command): void {
  program
    .command("setup")
    .description("find or download the libtorch that this package runs on; builds the addon where there is no binary")
    .addOption(new Option("--variant <name>", "which build of libtorch").choices(VARIANTS).default("cpu"))
    .option("--force", "download even when there is one")
    .option("--build", "build the addon here even when there is a binary (needs cmake and a C++ compiler)")
    .action(async (flags: Flags) => {
      const controller = new AbortController();
      const stop = () => controller.abort(new Failure("Stopped. What came so far is kept: run this again to go on."));
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
      try {
        await setup(flags, controller.signal);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        console.error(error.message);
        process.exitCode = 1;
      }
    });
}

async function setup({ variant, force = false, build = false }: Flags, signal: AbortSignal): Promise<void> {
  const { root } = await locked(join(home(), "setup.lock"), async () => {
    const found = await findLibtorch({ variant, force, signal });
    choose(found);
    console.error(`libtorch: ${found.version} from ${found.source}, ${found.root}`);
    return found;
  });
  if (build || binaryFolders().length === 0) {
    console.error(build ? "building the addon" : `there is no binary for ${PLATFORM}: building the addon`);
    const env = { ...process.env, CACHE_TO_CACHE_LIBTORCH: root };
    if (!run(process.execPath, [join(HOME, "scripts/setup.mjs")], { cwd: HOME, env }).ok)
      throw new Failure("The addon could not be built: the lines above say why.");
  }
  const result = diagnose();
  console.log(formatDiagnosis(result));
  if (result.binary === null) process.exitCode = 1;
}
