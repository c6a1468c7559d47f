// typings/native.d.ts is the whole native contract: names on both sides agree.
import { readFile } from "node:fs/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";

const source = await readFile(new URL("../typings/native.d.ts", import.meta.url), "utf8");

/** Member names of `export class NAME { … }` or `export interface NAME { … }`, constructors left out. */
function members(kind, name) {
  const body = source.match(new RegExp(`export ${kind} ${name} \\{\\n([\\s\\S]*?)\\n\\}`))?.[1];
  assert.ok(body, `${kind} ${name} is declared`);
  return [...body.matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)].map((m) => m[1]).filter((m) => m !== "constructor");
}

test("exports", () => {
  assert.equal(Object.keys(native()).sort(), members("interface", "Native").sort());
});

for (const name of [
  "NativeCancel",
  "NativeSampler",
  "NativeCache",
  "NativeModel",
  "NativeFuser",
  "NativeModelTrainer",
  "NativeFuserTrainer",
]) {
  test(name, () => {
    const own = Object.getOwnPropertyNames(native()[name].prototype).filter((m) => m !== "constructor");
    assert.equal(own.sort(), members("class", name).sort());
  });
}

test.run();
