// The public types: every name that is exported has a type test, and every one is documented. What the tests say is checked by
// the compiler (npm run typecheck).
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { test } from "uvu";
import * as assert from "uvu/assert";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const entries = { "lib/index.ts": path("../dist/index.d.ts"), "lib/testing.ts": path("../dist/testing.d.ts") };
const program = ts.createProgram(Object.values(entries), {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
  types: ["node"],
});
const checker = program.getTypeChecker();
const exportsOf = (file) => checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
const tests = await Promise.all((await readdir(path("types"))).map((name) => readFile(path(`types/${name}`), "utf8")));

for (const [entry, file] of Object.entries(entries)) {
  test(`type tests name every export of ${entry}`, () => {
    const from = new RegExp(`import (?:type )?\\{([^}]*)\\} from "../../${entry.replace(".ts", ".js")}"`, "g");
    const named = tests.flatMap((text) =>
      [...text.matchAll(from)].flatMap(([, names]) => names.split(",").map((name) => name.replace("type ", "").trim())),
    );
    const all = exportsOf(file).map(({ name }) => name);
    assert.ok(all.length > 10);
    assert.equal(
      all.filter((name) => !named.includes(name)),
      [],
      "exports without a type test",
    );
  });

  test(`every export of ${entry}, and every member of its interfaces, has a doc comment`, () => {
    const silent = (symbol) => symbol.getDocumentationComment(checker).length === 0;
    const missing = exportsOf(file).flatMap((symbol) => {
      const own = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
      const members =
        own.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.Class) ? [...(own.members?.values() ?? [])] : [];
      const named = members.filter(
        ({ name, flags }) => !name.startsWith("__") && !(flags & ts.SymbolFlags.TypeParameter),
      );
      return [own, ...named.filter(silent)]
        .filter(silent)
        .map(({ name }) => (name === own.name ? name : `${own.name}.${name}`));
    });
    assert.equal(missing, []);
  });
}

test("every type test file has what must not compile", () => {
  for (const text of tests) assert.match(text, /@ts-expect-error/);
});

test.run();
