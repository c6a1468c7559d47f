import { sentence } from "../audit/report.js";
import type { DemoExample, DemoReport } from "./run.js";

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`.padStart(8);
const row = (name: string, ...cells: readonly string[]): string =>
  `  ${name.padEnd(26)}${cells.map((cell) => cell.padStart(18)).join("")}`;

/** The report as a side by side table with its controls, for a terminal. */
export function formatDemo(report: DemoReport): string {
  const { questions: n, accuracy, own, mix, firstTokenMs } = report;
  const systems = [
    ["receiver alone", "receiver"],
    ["sharer alone", "sharer"],
    ["text-to-text", "text"],
    ["cache-to-cache", "c2c"],
  ] as const;
  const lines = [
    "",
    "Two small models that know different people. The sharer's knowledge reaches the receiver as a KV cache, not as text.",
    "",
    row("", `sharer's people`, `receiver's people`, "both", "first token"),
    row("", `n = ${n}`, `n = ${n}`, `n = ${2 * n}`, "median"),
    ...systems.map(([name, system]) =>
      row(
        name,
        percent(accuracy[system]),
        percent(own[system]),
        percent(mix[system]),
        `${firstTokenMs[system].toFixed(1)} ms`,
      ),
    ),
    "",
    "  Controls on the sharer's people: the same flow with a sharer cache that does not hold the answer",
    row("another question's cache", percent(accuracy.mismatched)),
    row("zeros, gates applied", percent(accuracy.zeroed)),
    `  ${sentence({ ...report, n })}`,
    "",
    ...example("A question that C2C answers", report.example),
    ...(report.failure ? example("One that it does not", report.failure) : []),
    "  Fused layers (mean weight of keys and values)",
    ...report.gates.map(
      ({ layer, key, value, keyWeight, valueWeight }) =>
        `    layer ${layer}  key ${key ? keyWeight.toFixed(2) : "closed"}  value ${value ? valueWeight.toFixed(2) : "closed"}`,
    ),
    "",
    "  Both models were prepared for this demo: the sharer brings a fact into its cache before the prompt ends, the receiver",
    '  says "unknown" about people it does not know, and the fuser was trained on other people of the same made-up world.',
    '  C2C is not the best way to combine these two: asking the receiver first and the sharer on "unknown" would be right more',
    "  often. What is shown is content that crosses without text, and that it is gone when the cache holds something else.",
    `  ${report.seconds.toFixed(0)} s in all.`,
  ];
  return lines.join("\n");
}

function example(title: string, { question, answer, receiver, sharer, text, c2c }: DemoExample): readonly string[] {
  return [
    `  ${title}: ${question} (${answer})`,
    `    receiver: ${receiver}   sharer: ${sharer}   text-to-text: ${text}   cache-to-cache: ${c2c}`,
    "",
  ];
}
