// Fuzzes everything that reads files of strangers: the libFuzzer targets in fuzz/*_fuzz.cpp (Clang) and the JavaScript targets in
// fuzz/targets (V8's coverage). The corpus and what was found lie in build/fuzz; the last line is "N passed, N failed".
//   node scripts/fuzz.mjs [--seconds N] [--seed N] [TARGET…]     N seconds in all, shared evenly; 30 by default
import { fork, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { seeds } from "../fuzz/seeds.mjs";
import { Failure, output } from "./process.mjs";
import { buildSanitized, folder as built, home, sanitizerEnvironment } from "./sanitized-build.mjs";

const HANG_MS = 20_000;
const place = join(home, "build/fuzz");
const { values, positionals } = parseArgs({
  options: { seconds: { type: "string", default: "30" }, seed: { type: "string" } },
  allowPositionals: true,
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));

function save(target, bytes) {
  const name = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  const path = join(place, "findings", `${target}-${name}`);
  mkdirSync(join(place, "findings"), { recursive: true });
  writeFileSync(path, bytes);
  return path;
}

/** One libFuzzer target; true when nothing was found. */
function native(target, seconds) {
  const corpus = join(place, "corpus", target);
  mkdirSync(corpus, { recursive: true });
  mkdirSync(join(place, "findings"), { recursive: true });
  for (const [i, bytes] of (seeds[target] ?? []).entries()) writeFileSync(join(corpus, `seed-${i}`), bytes);
  const regressions = join(home, "fuzz/regressions", target);
  const result = spawnSync(
    join(built, "tests", target),
    [
      ...[corpus, ...(existsSync(regressions) ? [regressions] : [])],
      ...[
        `-max_total_time=${Math.ceil(seconds)}`,
        `-seed=${seed}`,
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=2048",
      ],
      ...["-print_final_stats=1", "-verbosity=0", `-artifact_prefix=${join(place, "findings", `${target}-`)}`],
    ],
    { env: sanitizerEnvironment(), encoding: "utf8", cwd: home, maxBuffer: 1 << 28 },
  );
  const runs = /number_of_executed_units: (\d+)/.exec(result.stderr)?.[1] ?? "0";
  console.log(`${target}: ${runs} runs, ${result.status === 0 ? "nothing found" : "FOUND"}`);
  if (result.status !== 0) console.log(result.stderr.slice(-8000));
  return result.status === 0;
}

/** One JavaScript target; true when nothing was found. */
function script(target, seconds) {
  return new Promise((done) => {
    const args = [target, String(seed), String(seconds), place];
    const child = fork(join(home, "fuzz/worker.mjs"), args, {
      cwd: home,
      execArgv: ["--expose-gc", "--max-old-space-size=1024"],
    });
    let findings = 0;
    let last = { runs: 0, covered: 0, kept: 0, done: false };
    const found = (what, bytes) => {
      findings++;
      console.log(`${target}: FOUND ${what}\n  input: ${save(target, bytes)}`);
    };
    const hang = () => {
      found(`an input that takes longer than ${HANG_MS / 1000} s`, readFileSync(join(place, `${target}.input`)));
      child.kill("SIGKILL");
    };
    let watch = setTimeout(hang, HANG_MS);
    child.on("message", (message) => {
      clearTimeout(watch);
      watch = setTimeout(hang, HANG_MS);
      if (message.finding) found(message.finding, Buffer.from(message.input, "base64"));
      else last = message;
    });
    child.on("exit", (code, signal) => {
      clearTimeout(watch);
      const input = join(place, `${target}.input`);
      if (!last.done && findings === 0 && existsSync(input)) found(`an end by ${signal ?? code}`, readFileSync(input));
      else if (!last.done && findings === 0) findings++;
      const verdict = findings === 0 ? "nothing found" : `FOUND ${findings}`;
      console.log(`${target}: ${last.runs} runs, ${last.covered} blocks, ${last.kept} inputs kept, ${verdict}`);
      done(findings === 0);
    });
  });
}

async function main() {
  const list = (folder, end) =>
    readdirSync(join(home, folder))
      .filter((name) => name.endsWith(end))
      .map((name) => basename(name).slice(0, -end.length));
  const wanted = (name) => positionals.length === 0 || positionals.some((part) => name.includes(part));
  const natives = list("fuzz", "_fuzz.cpp")
    .map((name) => `${name}_fuzz`)
    .filter(wanted);
  const scripts = list("fuzz/targets", ".mjs").filter(wanted);
  if (natives.length + scripts.length === 0)
    throw new Failure(`No target's name contains ${positionals.join(" or ")}.`);
  if (natives.length > 0 && !(await buildSanitized()))
    throw new Failure(
      "libFuzzer comes with Clang, which was not found: install it (Debian/Ubuntu: apt-get install clang-14).",
    );
  const each = Number(values.seconds) / (natives.length + scripts.length);
  console.log(`seed ${seed}, ${each.toFixed(1)} s for each of ${natives.length + scripts.length} targets`);
  const results = [];
  for (const name of natives) results.push(native(name, each));
  for (const name of scripts) results.push(await script(name, each));
  const failed = results.filter((ok) => !ok).length;
  console.log(`${results.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  output(error.message);
  process.exitCode = 1;
}
