// The pages: links lead somewhere, every error code has a chapter, blocks are read as they should be. Running the blocks is
// `npm run check:docs`.
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { blocksOf, toCommonJs } from "../scripts/check/blocks.mjs";

const HOME = fileURLToPath(new URL("..", import.meta.url));
const pages = [
  "README.md",
  "CONTRIBUTING.md",
  "examples/electron/README.md",
  ...(await readdir(join(HOME, "docs"))).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`),
];

for (const page of pages) {
  test(`links of ${page}`, async () => {
    const text = await readFile(join(HOME, page), "utf8");
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(https?:|#|mailto:)/.test(target)) continue;
      const path = join(HOME, dirname(page), target.replace(/#.*/, ""));
      await stat(path).catch(() => assert.unreachable(`${page}: ${target} leads nowhere`));
    }
  });
}

test("every error code has its chapter, and no chapter is of a code that is gone", async () => {
  const source = await readFile(join(HOME, "lib/errors.ts"), "utf8");
  const body = /export interface ErrorDetails \{\n([\s\S]*?)\n\}/.exec(source)[1];
  const codes = [...body.matchAll(/^ {2}([A-Z_]+):/gm)].map(([, code]) => code);
  const page = await readFile(join(HOME, "docs/troubleshooting.md"), "utf8");
  const chapters = [...page.matchAll(/^### ([A-Z_]+)$/gm)].map(([, code]) => code);
  assert.ok(codes.length > 10);
  assert.equal(chapters.sort(), codes.sort());
});

test("blocks: language, line, what is said above them", async () => {
  const folder = await mkdtemp(join(tmpdir(), "c2c-blocks-"));
  const file = join(folder, "page.md");
  const fence = "```";
  await writeFile(
    file,
    [
      "# Page",
      `${fence}js`,
      "one();",
      fence,
      "<!-- not run: needs a terminal -->",
      "",
      `${fence}sh`,
      "two",
      fence,
      "<!-- prints: 3 -->",
      `  ${fence}ts`,
      "  three();",
      "    more();",
      `  ${fence}`,
      "<!-- change: lib/a.ts -->",
      `${fence}diff`,
      "+five",
      fence,
      fence,
      "four",
      fence,
    ].join("\n"),
  );
  assert.equal(blocksOf(file, "page"), [
    { page: "page", line: 2, language: "js", code: "one();" },
    { page: "page", line: 7, language: "sh", code: "two", skip: "needs a terminal" },
    { page: "page", line: 11, language: "ts", code: "three();\n  more();", prints: "3" },
    { page: "page", line: 16, language: "diff", code: "+five", change: "lib/a.ts" },
    { page: "page", line: 19, language: "", code: "four" },
  ]);
  await rm(folder, { recursive: true });
});

test("an example for CommonJS", () => {
  const code = toCommonJs('import { a, b as c } from "x";\n\nawait a(c);\n');
  assert.match(code, /^const \{ a, b: c \} = require\("x"\);\n\(async \(\) => \{\n/);
  assert.not.match(code, /import/);
});

test.run();
