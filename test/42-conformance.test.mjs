import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";

const run = promisify(execFile);
const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));

test("every recorded case is reproduced", async () => {
  const args = [path("../dist/conformance/main.js"), path("goldens"), "--json"];
  const { stdout } = await run(process.execPath, args, { maxBuffer: 64 << 20 }).catch((error) => error);
  const report = JSON.parse(stdout.trimEnd().split("\n").at(-1));
  const failures = report.cases
    .filter(({ pass }) => !pass)
    .map(({ file, name, reason }) => `${file} ${name}: ${reason}`);
  assert.equal(failures, []);
  assert.is(report.failed, 0);
  assert.ok(report.passed > 200);
});

test.run();
