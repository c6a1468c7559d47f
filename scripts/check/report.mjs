// Counting for the check scripts: every step says how it went, and the last line sums them up.
import { spawnSync } from "node:child_process";

/** Counts steps; `end` prints the last line and sets the exit code. */
export class Report {
  #passed = 0;
  #failed = 0;
  #skipped = 0;

  /** Runs a step; what it throws is its failure, what it returns is printed beside its name. */
  async step(name, run) {
    const since = performance.now();
    try {
      const note = await run();
      this.#passed++;
      const seconds = ((performance.now() - since) / 1000).toFixed(1);
      console.log(`ok      ${name}${note ? `: ${note}` : ""} (${seconds} s)`);
    } catch (error) {
      this.#failed++;
      console.log(`FAILED  ${name}: ${error.message}`);
    }
  }

  /** Counts something that was not run, with the reason. */
  skip(name, reason) {
    this.#skipped++;
    console.log(`skipped ${name}: ${reason}`);
  }

  end() {
    if (this.#passed + this.#failed === 0) this.#failed = 1;
    if (this.#skipped > 0) console.log(`${this.#skipped} skipped`);
    console.log(`${this.#passed} passed, ${this.#failed} failed`);
    process.exitCode = this.#failed > 0 ? 1 : 0;
  }
}

/** Runs a program; its stdout. Throws with its last lines when it fails or writes something unexpected to stderr. */
export function must(command, args, { quiet = false, ...options } = {}) {
  const result = spawnSync(command, args, { encoding: "utf8", timeout: 240_000, maxBuffer: 1 << 26, ...options });
  if (result.error) throw result.error;
  const text = `${result.stdout}\n${result.stderr}`.trim().split("\n");
  if (result.status !== 0)
    throw new Error(
      `${command} ${args.join(" ")} ended with ${result.status ?? result.signal}:\n${text.slice(-25).join("\n")}`,
    );
  if (quiet && result.stderr.trim() !== "") throw new Error(`${command} wrote to stderr: ${result.stderr.trim()}`);
  return result.stdout;
}
