// What a Linux binary says of itself, by binutils' readelf.
import { capture } from "../process.mjs";

/**
 * { needed, runpath, exports, imports, stripped, versions, versioned }: libraries it asks for, its RPATH or RUNPATH, the
 * symbols it defines for others and those it takes from them, whether it has no symbol table beside that of the dynamic
 * linker, the newest version it needs of each family of symbols (GLIBC, GLIBCXX, CXXABI), and [symbol, family, version] of
 * all imports that have one. undefined when readelf is missing or the file is none for it.
 */
export function readElf(path) {
  const read = (...flags) => capture("readelf", ["-W", ...flags, path]);
  const dynamic = read("-d");
  const symbols = read("--dyn-syms");
  const sections = read("-S");
  const versions = read("-V");
  if ([dynamic, symbols, sections, versions].includes(undefined)) return undefined;
  const rows = symbols
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((row) => /^\d+:$/.test(row[0]) && ["GLOBAL", "WEAK", "UNIQUE"].includes(row[4]) && row[7]);
  return {
    needed: [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((match) => match[1]),
    runpath: /\((?:RPATH|RUNPATH)\).*\[(.*)\]/.exec(dynamic)?.[1] ?? null,
    exports: rows
      .filter((row) => row[6] !== "UND")
      .map((row) => row[7])
      .sort(),
    imports: rows
      .filter((row) => row[6] === "UND")
      .map((row) => row[7].replace(/@.*/, ""))
      .sort(),
    versioned: rows
      .filter((row) => row[6] === "UND")
      .flatMap(({ 7: name }) => {
        const [, symbol, family, version] = /^(\w+)@(GLIBC|GLIBCXX|CXXABI)_([\d.]+)/.exec(name) ?? [];
        return symbol === undefined ? [] : [[symbol, family, version]];
      }),
    stripped: !/\.symtab|\.debug_/.test(sections),
    versions: newest(versions),
  };
}

function newest(text) {
  const found = {};
  for (const [, family, version] of text.matchAll(/\b(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)*)\b/g)) {
    if (found[family] === undefined || compareVersions(version, found[family]) > 0) found[family] = version;
  }
  return found;
}

/** Below, at or above zero, as version `a` is older, equal or newer than `b`. */
export function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => version.split(".").map(Number));
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
