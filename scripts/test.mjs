// Runs every test file in a process of its own, then the C++ test programs, and sums them up in one last line.
//   node scripts/test.mjs [NAME…]     only files and programs whose name contains one of the names
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const DEADLINE_MS = 240_000;
const names = process.argv.slice(2);
const wanted = (name) => names.length === 0 || names.some((part) => name.includes(part));
const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: "0", OMP_WAIT_POLICY: "PASSIVE" };
// What a program returns that has nothing to run on, a GPU say.
const NOT_RUN = 77;
const totals = { passed: 0, failed: 0, skipped: 0 };

/** Runs a program to its end or its deadline, passing its output on. */
function execute(command, args) {
  return new Promise((done) => {
    // A process group of its own: a deadline ends the children of a test too.
    const child = spawn(command, args, { cwd: home, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    let text = "";
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      end(child);
    }, DEADLINE_MS);
    const stop = () => end(child);
    process.once("exit", stop);
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.setEncoding("utf8");
      from.on("data", (chunk) => {
        text += chunk;
        to.write(chunk);
      });
    }
    child.on("error", (error) => done({ text, cause: error.message }));
    child.on("exit", () => setTimeout(() => end(child), 1000).unref());
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      process.off("exit", stop);
      const cause = late ? `ran past ${DEADLINE_MS / 1000} s` : signal ? `ended by ${signal}` : `exit code ${code}`;
      done({ text, code, cause: code === 0 && !late ? undefined : cause });
    });
  });
}

function end(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It is gone already.
  }
}

/** The sum of uvu's closing lines in a file's output. */
function counts(text) {
  const sum = (label) =>
    [...text.matchAll(new RegExp(`^\\s*${label}:\\s+(\\d+)`, "gm"))].reduce((total, [, n]) => total + Number(n), 0);
  return { total: sum("Total"), passed: sum("Passed"), skipped: sum("Skipped") };
}

function add(name, { passed, failed, skipped = 0 }, cause, since) {
  totals.passed += passed;
  totals.failed += failed;
  totals.skipped += skipped;
  const seconds = ((performance.now() - since) / 1000).toFixed(1);
  const verdict = failed > 0 ? `FAILED ${failed}${cause ? ` (${cause})` : ""}` : "ok";
  console.log(`• ${name}: ${passed} passed, ${verdict} (${seconds} s)\n`);
}

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));

const files = readdirSync(join(home, "test"))
  .filter((name) => name.endsWith(".test.mjs") && wanted(name))
  .sort();
for (const name of files) {
  const since = performance.now();
  const { text, cause } = await execute(process.execPath, [join("test", name)]);
  const { total, passed, skipped } = counts(text);
  // uvu names what failed; a crash, a deadline or a file without tests is one failure more.
  const missed = total - passed - skipped;
  const failed = missed > 0 ? missed : cause !== undefined || total === 0 ? 1 : 0;
  add(name, { passed, failed, skipped }, cause ?? (total === 0 ? "no tests ran" : undefined), since);
}

const programs = join(home, "build/tests");
for (const name of existsSync(programs) ? readdirSync(programs).sort() : []) {
  const source = join(home, "test/cpp", `${basename(name)}.cpp`);
  if (!name.endsWith("_test") || !wanted(name) || !existsSync(source)) continue;
  const since = performance.now();
  const { text, code, cause } = await execute(join(programs, name), []);
  if (code === NOT_RUN) {
    add(name, { passed: 0, failed: 0, skipped: 1 }, undefined, since);
    continue;
  }
  // A program may say how many checks it made in a last line "N passed, N failed"; else it counts as one.
  const said = /(\d+) passed, (\d+) failed\s*$/.exec(text);
  const passed = said ? Number(said[1]) : cause === undefined ? 1 : 0;
  const failed = cause === undefined ? Number(said?.[2] ?? 0) : Math.max(1, Number(said?.[2] ?? 0));
  add(name, { passed, failed }, cause, since);
}

if (totals.passed + totals.failed === 0) totals.failed = 1;
if (totals.skipped > 0) console.log(`${totals.skipped} skipped`);
console.log(`${totals.passed} passed, ${totals.failed} failed`);
process.exitCode = totals.failed > 0 ? 1 : 0;
