import { type Command, Option } from "commander";
import { readFuserFolder, writeFuserFolder } from "../fuser/folder.js";
import { resolveSource } from "../weights/source.js";
import { parseSource, withProgress } from "./sources.js";

/** `convert`: a fuser from one format into the other. */
export function addConvert(program: Command): void {
  program
    .command("convert")
    .description("write a fuser in this package's format or in the reference's")
    .argument("<in>", "a fuser: a folder or owner/name[@revision][:folder]")
    .argument("<out>", "the folder to write")
    .addOption(new Option("--format <format>", "what to write").choices(["native", "reference"]).default("native"))
    .action(async (from: string, out: string, { format }: { readonly format: "native" | "reference" }) => {
      const folder = await withProgress(from, (onProgress) =>
        resolveSource(parseSource(from), "fuser", { onProgress }),
      );
      await writeFuserFolder(await readFuserFolder(folder), out, format);
      console.log(`${out} (${format})`);
    });
}
