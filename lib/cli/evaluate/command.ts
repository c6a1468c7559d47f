import { join } from "node:path";
import type { Command } from "commander";
import { writeAtomic } from "../../weights/atomic.js";
import { withBar } from "../progress.js";
import { chartOf, csvOf, formatReport, reportTasks } from "./report.js";
import { runEvaluation } from "./run.js";

/** `evaluate`: subjects on benchmarks as a configuration says; run again, it goes on where it was stopped. */
export function addEvaluate(program: Command): void {
  program
    .command("evaluate")
    .description(
      "accuracy on benchmarks: receiver, sharer, text-to-text, C2C and the controls, with intervals and audits",
    )
    .requiredOption(
      "--config <file>",
      "what to evaluate (see docs/evaluation.md); continues an evaluation that was stopped",
    )
    .option("--json", "print the report as one JSON object on the last line")
    .action(async ({ config: path, json }: { readonly config: string; readonly json?: boolean }) => {
      const { config, tasks } = await withBar((onProgress) => runEvaluation(path, { onProgress }));
      const report = reportTasks(tasks);
      const choices = tasks.map((task) => task.choices);
      const text = `${formatReport(report, choices)}\n`;
      await writeAtomic(join(config.output, "report.json"), `${JSON.stringify(report, null, 2)}\n`);
      await writeAtomic(join(config.output, "report.txt"), text);
      await writeAtomic(join(config.output, "answers.csv"), csvOf(tasks));
      await writeAtomic(join(config.output, "chart.svg"), chartOf(report));
      console.log(`\n${text}\nresults: ${config.output}`);
      if (json) console.log(JSON.stringify(report));
    });
}
