import type { Command } from "commander";
import { formatDemo } from "../demo/print.js";
import { runDemo } from "../demo/run.js";
import { withBar } from "./progress.js";

/** `demo`: the embedded pair on its held-out questions; --json adds one JSON object on the last line. */
export function addDemo(program: Command): void {
  program
    .command("demo")
    .description("two small models that come with the package: each alone, by text, by cache, and the controls")
    .option("--json", "print the numbers as one JSON object on the last line")
    .option("--limit <n>", "questions of each group (default: all)", Number)
    .action(async ({ json, limit }: { readonly json?: boolean; readonly limit?: number }) => {
      const report = await withBar((onProgress) => runDemo({ onProgress, ...(limit === undefined ? {} : { limit }) }));
      console.log(formatDemo(report));
      if (json) console.log(JSON.stringify(report));
    });
}
