import type { Command } from "commander";
import { type Diagnosis, diagnose } from "../setup/diagnose.js";

/** `doctor`: what the package stands on here, and what is wrong; exit code 1 when it cannot work. */
export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("print what was found (Node, libtorch, binary, devices) and what is wrong")
    .option("--json", "print one JSON object")
    .action(({ json }: { readonly json?: boolean }) => {
      const found = diagnose();
      console.log(json ? JSON.stringify(found, null, 2) : formatDiagnosis(found));
      if (found.findings.some(({ level }) => level === "error")) process.exitCode = 1;
    });
}

/** A diagnosis as lines for people. */
export function formatDiagnosis(found: Diagnosis): string {
  const { node, binary, libtorch } = found;
  const rows: (readonly [string, string])[] = [
    ["package", `${found.package.version} in ${found.package.folder}`],
    ["Node", `${node.version}, Node-API ${node.napi}, ${node.platform}${node.glibc ? `, glibc ${node.glibc}` : ""}`],
    ["binary", binary ? `${binary.kind}, ${binary.path}` : `none of ${found.binaries.length} could be loaded`],
    [
      "libtorch",
      libtorch
        ? `${libtorch.version}, ${libtorch.variant ?? "unknown variant"}, ${libtorch.threads} threads, from ${libtorch.source}: ${libtorch.root}`
        : "none loaded",
    ],
    ...found.devices.map((device) => ["device", device] as const),
    ...found.looked.map(({ root, source, result }) => ["looked", `${source}: ${root}: ${result}`] as const),
  ];
  const lines = rows.map(([name, text]) => `${name.padEnd(9)} ${text}`);
  for (const { level, what, fix } of found.findings) {
    lines.push(`${level === "error" ? "WRONG" : "note"}: ${what}`);
    if (fix) lines.push(`  → ${fix}`);
  }
  if (!found.findings.some(({ level }) => level === "error")) lines.push("Everything that is needed is there.");
  return lines.join("\n");
}
