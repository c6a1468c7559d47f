// Builds the core and its C++ test programs with sanitizers and runs them by ctest; the last line is "N passed, N failed".
import { spawnSync } from "node:child_process";
import { Failure, output } from "./process.mjs";
import { buildSanitized, folder, sanitizerEnvironment } from "./sanitized-build.mjs";

try {
  await buildSanitized();
  const tests = spawnSync("ctest", ["--test-dir", folder, "--output-on-failure", "--no-tests=error"], {
    encoding: "utf8",
    env: sanitizerEnvironment(),
    stdio: ["ignore", "pipe", "inherit"],
  });
  process.stdout.write(tests.stdout ?? "");
  const said = /(\d+) tests? failed out of (\d+)/.exec(tests.stdout ?? "");
  const failed = said ? Number(said[1]) : 1;
  console.log(`${said ? Number(said[2]) - failed : 0} passed, ${failed} failed`);
  process.exitCode = failed > 0 || tests.status !== 0 ? 1 : 0;
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  output(error.message);
  process.exitCode = 1;
}
