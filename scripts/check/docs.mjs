// Runs every code block of the README, the guides and the examples' READMEs, in a folder that has this package installed.
//   npm run check:docs [-- PART…]     only files whose path contains one of the parts
//
// js, mjs and cjs blocks are run by Node, ts blocks are also type-checked, sh blocks are run by a shell, json blocks are
// parsed, svg and text blocks are for people. Comments on the line before a block: `<!-- prints: TEXT -->` is what its output
// must hold, `<!-- not run: REASON -->` marks what needs a hub, a terminal or minutes, and counts as skipped. A fence without
// a language is a failure.
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { blocksOf } from "./blocks.mjs";
import { must, Report } from "./report.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const parts = process.argv.slice(2);
const report = new Report();
const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-docs-"));
const project = join(folder, "project");
const env = {
  ...process.env,
  PATH: `${join(project, "node_modules/.bin")}:${process.env.PATH}`,
  NO_COLOR: "1",
  OMP_WAIT_POLICY: "PASSIVE",
};

/** Markdown files with code that people copy, as paths in the repository. */
function documents() {
  const list = (name, ending) =>
    existsSync(join(home, name)) ? readdirSync(join(home, name)).filter((file) => file.endsWith(ending)) : [];
  const examples = list("examples", "").map((name) => `examples/${name}/README.md`);
  const all = ["README.md", "CONTRIBUTING.md", ...list("docs", ".md").map((name) => `docs/${name}`), ...examples];
  return all.filter(
    (path) => existsSync(join(home, path)) && (parts.length === 0 || parts.some((part) => path.includes(part))),
  );
}

/** A project that has this package among its dependencies, with its commands. */
function installPackage() {
  const bin = join(project, "node_modules/.bin");
  mkdirSync(bin, { recursive: true });
  symlinkSync(home, join(project, "node_modules/cache-to-cache"), "junction");
  symlinkSync(join(home, "node_modules/@types"), join(project, "node_modules/@types"), "junction");
  for (const name of ["cache-to-cache", "c2c"]) {
    writeFileSync(join(bin, name), `#!/bin/sh\nexec "${process.execPath}" "${join(home, "dist/cli/main.js")}" "$@"\n`);
    chmodSync(join(bin, name), 0o755);
  }
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }));
}

function typeCheck(file) {
  const options = [
    "--noEmit",
    "--strict",
    "--module",
    "nodenext",
    "--target",
    "es2022",
    "--skipLibCheck",
    "--types",
    "node",
  ];
  must(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), ...options, file], { cwd: project });
}

/** Strips the types of a block and runs it. */
function runTypeScript(file) {
  const output = file.replace(/\.ts$/, ".mjs");
  must(
    join(home, "node_modules/.bin/esbuild"),
    [file, `--outfile=${output}`, "--format=esm", "--target=node20", "--log-level=warning"],
    { cwd: project },
  );
  return must(process.execPath, [output], { cwd: project, env });
}

/** Compiles a block that is a file of this repository in a copy of its sources. */
function compileOwn(path, code) {
  const copy = join(folder, "copy");
  if (!existsSync(copy)) {
    for (const name of ["lib", "cpp", "typings", "scripts", "tsconfig.json", "package.json"])
      cpSync(join(home, name), join(copy, name), { recursive: true });
    symlinkSync(join(home, "node_modules"), join(copy, "node_modules"), "junction");
  }
  writeFileSync(join(copy, path), `${code}\n`);
  if (path.endsWith(".ts"))
    return must(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), "--noEmit", "-p", copy], {
      cwd: copy,
    });
  const { root } = JSON.parse(readFileSync(join(home, "build/libtorch.json"), "utf8"));
  const flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-parameter", `-I${join(copy, "cpp")}`];
  return must(process.env.CXX ?? "c++", [...flags, "-isystem", join(root, "include"), join(copy, path)], { cwd: copy });
}

const runners = {
  js: (file) => must(process.execPath, [file], { cwd: project, env }),
  ts(file) {
    typeCheck(file);
    return runTypeScript(file);
  },
  sh: (file) => must("sh", ["-eu", file], { cwd: project, env }),
  json: (_file, code) => void JSON.parse(code),
};
const NAMES = {
  js: "js",
  mjs: "js",
  javascript: "js",
  cjs: "js",
  ts: "ts",
  typescript: "ts",
  sh: "sh",
  bash: "sh",
  json: "json",
};
const EXTENSIONS = {
  js: "mjs",
  mjs: "mjs",
  javascript: "mjs",
  cjs: "cjs",
  ts: "ts",
  typescript: "ts",
  sh: "sh",
  bash: "sh",
  json: "json",
};
const FOR_PEOPLE = ["text", "svg"];

try {
  installPackage();
  let number = 0;
  for (const path of documents()) {
    for (const { line, language, code, skip, prints, file: own } of blocksOf(join(home, path), path)) {
      const name = `${path}:${line} (${language || "no language"})`;
      if (FOR_PEOPLE.includes(language)) continue;
      if (skip) {
        report.skip(name, skip);
        continue;
      }
      if (own !== undefined) {
        await report.step(name, () => compileOwn(own, code));
        continue;
      }
      await report.step(name, () => {
        const runner = runners[NAMES[language]];
        if (runner === undefined) throw new Error("no way to run it: name its language, or say why it is not run");
        const file = join(project, `block-${++number}.${EXTENSIONS[language]}`);
        writeFileSync(file, `${code}\n`);
        const output = runner(file, code);
        if (prints !== undefined && !output?.includes(prints))
          throw new Error(`${JSON.stringify(prints)} is not in its output: ${output}`);
      });
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report.end();
