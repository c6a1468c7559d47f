// Runs every code block of the README, the guides and the examples' READMEs, in a folder that has this package installed.
//   npm run check:docs [-- PART…]     only files whose path contains one of the parts
//
// js, mjs and cjs blocks are run by Node, ts blocks are also type-checked, sh blocks are run by a shell, json blocks are
// parsed, svg and text blocks are for people. Comments on the line before a block: `<!-- prints: TEXT -->` is what its output
// must hold, `<!-- file: PATH -->` and `<!-- change: PATH -->` are applied to a copy of the sources, which is compiled in the
// end, `<!-- not run: REASON -->` marks what needs a hub, a terminal or minutes, and counts as skipped. A fence without a
// language is a failure.
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
import { capture } from "../process.mjs";
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

function typeCheck(files) {
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
  must(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), ...options, ...files], { cwd: project });
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

/** A copy of the sources, into which blocks that are files of this repository, or changes of them, are written. */
const copy = {
  root: join(folder, "copy"),
  sources: new Set(),
  kernels: new Set(),
  typescript: false,
  path(file) {
    if (!existsSync(this.root)) {
      for (const name of ["lib", "cpp", "typings", "scripts", "tsconfig.json", "package.json"])
        cpSync(join(home, name), join(this.root, name), { recursive: true });
      symlinkSync(join(home, "node_modules"), join(this.root, "node_modules"), "junction");
    }
    if (file.endsWith(".ts")) this.typescript = true;
    if (file.endsWith(".cpp")) this.sources.add(file);
    if (file.endsWith(".cu")) this.kernels.add(file);
    return join(this.root, file);
  },
  add(file, code) {
    if (existsSync(this.path(file))) throw new Error(`${file} is there already`);
    writeFileSync(this.path(file), `${code}\n`);
  },
  /** Replaces the block's "-" lines by its "+" lines; other lines are there for the reader, and must be there too. */
  change(file, code) {
    const lines = code.split("\n").map((line) => [line[0], line.slice(1)]);
    const [before, after] = ["+", "-"].map((left) =>
      lines
        .filter(([sign]) => sign !== left)
        .map(([, text]) => `${text}\n`)
        .join(""),
    );
    const text = readFileSync(this.path(file), "utf8");
    if (text.split(before).length !== 2) throw new Error(`${file} does not have these lines, or has them twice`);
    writeFileSync(
      this.path(file),
      text.replace(before, () => after),
    );
    // A list that is included has no compiler of its own: who includes it has.
    if (!file.endsWith(".inl")) return;
    for (const name of readdirSync(join(home, "cpp"), { recursive: true, encoding: "utf8" }))
      if (name.endsWith(".cpp") && includes(join(home, "cpp", name), file.slice("cpp/".length)))
        this.sources.add(`cpp/${name}`);
  },
  async compile() {
    if (this.typescript)
      await report.step("these files and changes: TypeScript", () => {
        must(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), "--noEmit", "-p", this.root], {
          cwd: this.root,
        });
      });
    for (const file of this.kernels) {
      const nvcc = process.env.CUDACXX ?? "nvcc";
      const name = `these files and changes: ${file}`;
      if (capture(nvcc, ["--version"]) === undefined) report.skip(name, "no nvcc");
      else
        await report.step(name, () => {
          const flags = ["-std=c++20", "-arch=sm_80", "--expt-relaxed-constexpr", "-Icpp", "-c"];
          must(nvcc, [...flags, file, "-o", join(folder, "kernel.o")], { cwd: this.root });
        });
    }
    if (this.sources.size === 0) return;
    const { root } = JSON.parse(readFileSync(join(home, "build/libtorch.json"), "utf8"));
    const flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-psabi"];
    await report.step(`these files and changes: ${[...this.sources].join(", ")}`, () => {
      must(process.env.CXX ?? "c++", [...flags, "-Icpp", "-isystem", join(root, "include"), ...this.sources], {
        cwd: this.root,
      });
    });
  },
};

/** Whether a source includes a file, itself or by an `.inl` of the same folder. */
function includes(source, wanted) {
  const text = readFileSync(source, "utf8");
  if (text.includes(`#include "${wanted}"`)) return true;
  return [...text.matchAll(/#include "(.+\.inl)"/g)].some(([, name]) => includes(join(home, "cpp", name), wanted));
}

const runners = {
  js: (file) => must(process.execPath, [file], { cwd: project, env }),
  ts: runTypeScript,
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
  const typed = [];
  for (const path of documents()) {
    for (const { line, language, code, skip, prints, file: own, change } of blocksOf(join(home, path), path)) {
      const name = `${path}:${line} (${language || "no language"})`;
      if (FOR_PEOPLE.includes(language)) continue;
      if (skip) {
        report.skip(name, skip);
        continue;
      }
      if (own !== undefined || change !== undefined) {
        await report.step(name, () => (own === undefined ? copy.change(change, code) : copy.add(own, code)));
        continue;
      }
      await report.step(name, () => {
        const runner = runners[NAMES[language]];
        if (runner === undefined) throw new Error("no way to run it: name its language, or say why it is not run");
        const file = join(project, `${path.replace(/\W+/g, "-")}-${line}.${EXTENSIONS[language]}`);
        writeFileSync(file, `${code}\n`);
        if (NAMES[language] === "ts") typed.push(file);
        const output = runner(file, code);
        if (prints !== undefined && !output?.includes(prints))
          throw new Error(`${JSON.stringify(prints)} is not in its output: ${output}`);
      });
    }
  }
  if (typed.length > 0) await report.step(`types of ${typed.length} blocks`, () => void typeCheck(typed));
  await copy.compile();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report.end();
