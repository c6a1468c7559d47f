// Code blocks of Markdown files.
import { readFileSync } from "node:fs";

/**
 * { page, line, language, code, skip?, prints?, file?, change? }: every fenced block. Comments on the line before a block
 * say more: `<!-- not run: REASON -->` marks what a check cannot run, `<!-- prints: TEXT -->` what its output must hold,
 * `<!-- file: PATH -->` a new file of the repository, `<!-- change: PATH -->` lines that leave (-) and come (+) in one.
 */
export function blocksOf(file, name = file) {
  const lines = readFileSync(file, "utf8").split("\n");
  const blocks = [];
  for (let i = 0; i < lines.length; i++) {
    const [, indent, fence, language] = /^(\s*)(`{3,})(\S*)/.exec(lines[i]) ?? [];
    if (fence === undefined) continue;
    const start = i;
    const code = [];
    for (i++; i < lines.length && lines[i].trim() !== fence; i++) code.push(lines[i].slice(indent.length));
    let above = start - 1;
    while (above >= 0 && lines[above].trim() === "") above--;
    const [, what, text] = /^<!-- (not run|prints|file|change): (.+) -->$/.exec(lines[above]?.trim() ?? "") ?? [];
    const said = what === undefined ? {} : { [what === "not run" ? "skip" : what]: text };
    blocks.push({ page: name, line: start + 1, language, code: code.join("\n"), ...said });
  }
  return blocks;
}

/** The README's example: the first JavaScript block. */
export function example(readme) {
  const block = blocksOf(readme).find(({ language }) => language === "js");
  if (block === undefined) throw new Error(`${readme} has no JavaScript block`);
  return block.code;
}

/** An example for CommonJS: its imports as `require`, the rest in an async function. */
export function toCommonJs(code) {
  const imports = [];
  const rest = code.replace(/^import (\{[^}]*\}) from ("[^"]+");$/gm, (_, names, from) => {
    imports.push(`const ${names.replaceAll(" as ", ": ")} = require(${from});`);
    return "";
  });
  return `${imports.join("\n")}\n(async () => {\n${rest}\n})().catch((error) => { console.error(error); process.exitCode = 1; });\n`;
}
