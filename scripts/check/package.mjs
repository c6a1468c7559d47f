// The package as people get it: packed, installed in an empty project, and the README's example run there in every way.
//   npm run check:package       needs prebuilds/ (npm run prebuild) and a libtorch
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { places, readChoice } from "../libtorch/places.mjs";
import { example, toCommonJs } from "./blocks.mjs";
import { must, Report } from "./report.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const bin = (name) => join(home, "node_modules/.bin", name);
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const report = new Report();
const folder = realpathSync(mkdtempSync(join(tmpdir(), "cache to cache package ")));
const project = join(folder, "project");
const code = example(join(home, "README.md"));
const PAIR_ANSWERS = /first token after/;
/** What a package may hold: anything else is there by mistake. */
const EXPECTED =
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt|(dist|models|prebuilds|cpp|typings|scripts)\/.*)$/;
const UNWANTED = /\.(js\.map|ts\.map|tsbuildinfo|test\.\w+)$|(^|\/)(test|build|bench|docs|node_modules)\//;
const MOST_MB = 15;

function write(name, text) {
  mkdirSync(dirname(join(project, name)), { recursive: true });
  writeFileSync(join(project, name), text);
  return join(project, name);
}

/** Runs a file of the project with Node; it must answer and write nothing to stderr. */
function runs(file) {
  const env = { ...process.env, NODE_OPTIONS: "", ...(libtorch ? { CACHE_TO_CACHE_LIBTORCH: libtorch } : {}) };
  const text = must(process.execPath, [file], { cwd: project, env, quiet: true });
  if (!PAIR_ANSWERS.test(text)) throw new Error(`unexpected output: ${text}`);
}

function typescript(resolution, settings) {
  const options = {
    strict: true,
    target: "es2022",
    types: ["node"],
    skipLibCheck: false,
    outDir: `out-${resolution}`,
    ...settings,
  };
  const config = write(
    `tsconfig.${resolution}.json`,
    JSON.stringify({ compilerOptions: options, files: ["example.ts"] }),
  );
  must(process.execPath, [join(home, "node_modules/typescript/bin/tsc"), "-p", config], { cwd: project });
  runs(join(project, `out-${resolution}`, "example.js"));
}

let tarball;
// A build here knows where its libtorch is; an installed package has to be told when that is no place it looks at.
// Where nothing was built (a machine that only tries prebuilds), it must be in such a place.
const record = join(home, "build/libtorch.json");
const recorded = existsSync(record) ? JSON.parse(readFileSync(record, "utf8")).root : undefined;
const libtorch =
  readChoice()?.root === recorded || places().some(({ root }) => root === recorded) ? undefined : recorded;

try {
  await report.step("npm pack", () => {
    mkdirSync(project);
    const [packed] = JSON.parse(
      must(npm, ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], { cwd: home }),
    );
    tarball = join(folder, packed.filename);
    const strange = packed.files.map(({ path }) => path).filter((path) => !EXPECTED.test(path) || UNWANTED.test(path));
    if (strange.length > 0) throw new Error(`not needed: ${strange.slice(0, 10).join(", ")}`);
    if (!packed.files.some(({ path }) => /^prebuilds\/.*\.node$/.test(path)))
      throw new Error("no prebuilds: npm run prebuild");
    if (packed.size > MOST_MB * 1e6) throw new Error(`${packed.size} bytes, ${MOST_MB} MB at most`);
    const mb = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
    return `${packed.files.length} files, ${mb(packed.size)} packed, ${mb(packed.unpackedSize)} unpacked`;
  });
  await report.step("publint", () => {
    must(bin("publint"), ["run", tarball, "--strict"], { cwd: home });
  });
  await report.step("are the types wrong, esm-only", () => {
    must(bin("attw"), [tarball, "--profile", "esm-only", "--no-emoji"], { cwd: home });
  });
  await report.step("install in an empty project", () => {
    write("package.json", JSON.stringify({ name: "project", private: true, type: "module" }));
    const types = JSON.parse(readFileSync(join(home, "node_modules/@types/node/package.json"), "utf8")).version;
    must(npm, ["install", "--no-audit", "--no-fund", "--prefer-offline", tarball, `@types/node@${types}`], {
      cwd: project,
    });
  });
  await report.step("doctor", () => {
    const env = { ...process.env, ...(libtorch ? { CACHE_TO_CACHE_LIBTORCH: libtorch } : {}) };
    const found = JSON.parse(
      must(npm, ["exec", "--no", "--", "cache-to-cache", "doctor", "--json"], { cwd: project, env }),
    );
    if (found.binary.kind !== "prebuild") throw new Error(`a ${found.binary.kind} was loaded`);
    return `${found.libtorch.version} from ${found.libtorch.source}`;
  });
  await report.step("README example, ESM", () => runs(write("example.mjs", code)));
  await report.step("README example, CommonJS by require", () => runs(write("example.cjs", toCommonJs(code))));
  write("example.ts", code);
  await report.step("README example, TypeScript nodenext", () => typescript("nodenext", { module: "nodenext" }));
  await report.step("README example, TypeScript bundler", () =>
    typescript("bundler", { module: "esnext", moduleResolution: "bundler" }),
  );
  for (const [format, extension] of [
    ["esm", "mjs"],
    ["cjs", "cjs"],
  ]) {
    await report.step(`README example, esbuild to ${format}, package external`, () => {
      const input = format === "esm" ? "example.mjs" : "example.cjs";
      const output = join(project, `bundle.${extension}`);
      must(
        bin("esbuild"),
        [
          input,
          "--bundle",
          "--platform=node",
          `--format=${format}`,
          "--external:cache-to-cache",
          `--outfile=${output}`,
          "--log-level=warning",
        ],
        { cwd: project },
      );
      runs(output);
    });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report.end();
