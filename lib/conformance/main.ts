#!/usr/bin/env node
import { runCases } from "./cases.js";
import type { CaseResult } from "./golden.js";
import { Loaded } from "./models.js";
import { runAlign, runTokenizers } from "./tokens.js";
import { runTrain } from "./train.js";
import { runMisc, runUnits } from "./units.js";

const [folder, ...flags] = process.argv
  .slice(2)
  .sort((a, b) => Number(a.startsWith("--")) - Number(b.startsWith("--")));
if (!folder || folder.startsWith("--") || flags.some((flag) => flag !== "--json")) {
  console.error("usage: conformance DIR [--json]");
  process.exitCode = 2;
} else {
  await main(folder, flags.includes("--json"));
}

async function main(folder: string, json: boolean): Promise<void> {
  const cases: CaseResult[] = [];
  const report = (result: CaseResult): void => {
    cases.push(result);
    const outcome = result.pass ? "pass" : "FAIL";
    const tokens = result.tokensMatch ? "tokens match" : "tokens differ";
    const reason = result.reason ? `  ${result.reason}` : "";
    console.log(
      `${outcome}  ${result.file}  ${result.name}  max ${result.maxAbs.toExponential(2)}  ${tokens}${reason}`,
    );
  };
  await using loaded = new Loaded(folder);
  const parts: readonly (readonly [file: string, run: () => Promise<void>])[] = [
    ["cases.json", () => runCases(folder, loaded, report)],
    ["unit.json", () => runUnits(folder, report)],
    ["misc.json", () => runMisc(folder, report)],
    ["align.json", () => runAlign(folder, loaded, report)],
    ["tokenizers.json", () => runTokenizers(folder, loaded, report)],
    ["train.json", () => runTrain(folder, loaded, report)],
  ];
  for (const [file, run] of parts) {
    try {
      await run();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      report({
        file,
        name: file,
        maxAbs: 0,
        tokensMatch: false,
        pass: false,
        reason,
      });
    }
  }
  const failed = cases.filter(({ pass }) => !pass).length;
  const passed = cases.length - failed;
  console.log(`${passed} passed, ${failed} failed`);
  if (json) console.log(JSON.stringify({ cases, passed, failed, notRun: 0 }));
  if (failed > 0) process.exitCode = 1;
}
