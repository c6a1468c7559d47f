import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Broken, expect, fault } from "../fuzz/expect.mjs";
import { mutateBytes, mutateJson } from "../fuzz/mutate.mjs";
import { Random } from "../fuzz/random.mjs";

const home = fileURLToPath(new URL("../fuzz", import.meta.url));
const test = suite("fuzz");
let folder = "";
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-fuzz-"));
});
test.after(() => rm(folder, { recursive: true, force: true }));

async function wrong(target, bytes) {
  const path = join(folder, "input");
  await writeFile(path, bytes);
  return await fault(target, bytes, path);
}

for (const file of readdirSync(join(home, "targets"))) {
  const name = file.replace(/\.mjs$/, "");
  const target = await import(`../fuzz/targets/${file}`);

  test(`${name}: seeds, and inputs that once broke a promise`, async () => {
    for (const bytes of target.seeds()) assert.is(await wrong(target, bytes), undefined);
    const past = join(home, "regressions", name);
    for (const input of existsSync(past) ? readdirSync(past) : []) {
      assert.is(await wrong(target, Uint8Array.from(readFileSync(join(past, input)))), undefined, input);
    }
  });

  test(`${name}: 300 changed inputs, the same for the same seed`, async () => {
    const draw = () => {
      const random = new Random(7);
      const from = target.seeds();
      return Array.from({ length: 300 }, () => target.mutate(random.pick(from), random, from, 4096));
    };
    const inputs = draw();
    assert.equal(draw(), inputs);
    for (const bytes of inputs) {
      assert.ok(bytes instanceof Uint8Array && bytes.buffer.byteLength === bytes.length, "bytes of its own");
      assert.is(await wrong(target, bytes), undefined, Buffer.from(bytes).toString("base64"));
    }
  });
}

test("a target that breaks its promises is noticed", async () => {
  const bytes = new Uint8Array(3);
  const target = (run) => ({ codes: ["FILE_INVALID"], run });
  assert.match(
    await fault(
      target(() => expect(false, "all is well")),
      bytes,
      "",
    ),
    /broken promise: all is well/,
  );
  assert.match(
    await fault(
      target(() => bytes.none.such),
      bytes,
      "",
    ),
    /TypeError/,
  );
  assert.is(
    await fault(
      target(() => expect(true, "all is well")),
      bytes,
      "",
    ),
    undefined,
  );
  assert.throws(
    () => expect(false, ""),
    (error) => error instanceof Broken,
  );
});

test("changes stay in their limits", () => {
  const random = new Random(1);
  for (let i = 0; i < 2000; i++) {
    assert.ok(mutateBytes(new Uint8Array(random.below(20)), random, [new Uint8Array(9)], 16).length <= 16);
  }
  const value = { a: { shape: [2, 3] } };
  for (let i = 0; i < 500; i++) mutateJson(value, random, ["a", "__proto__"]);
  assert.equal(value, { a: { shape: [2, 3] } });
});

test.run();
