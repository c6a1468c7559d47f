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
    .option("--json", "print one JSON object: kind, format, folder, projectors")
    .action(
      async (
        from: string,
        out: string,
        flags: { readonly format: "native" | "reference"; readonly json?: boolean },
      ) => {
        const { format } = flags;
        const folder = await withProgress(from, (onProgress) =>
          resolveSource(parseSource(from), "fuser", { onProgress }),
        );
        const fuser = await readFuserFolder(folder);
        await writeFuserFolder(fuser, out, format);
        const result = { kind: fuser.kind, format, folder: out, projectors: fuser.projectors.length };
        console.log(flags.json ? JSON.stringify(result) : `${out} (${format})`);
      },
    );
}
