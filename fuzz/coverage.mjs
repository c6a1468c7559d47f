// Which blocks of the code under test ran, and about how often: V8's own block coverage.
import { Session } from "node:inspector";

/** Watches the scripts whose URL contains one of `parts`. */
export class Coverage {
  #session = new Session();
  #parts;
  #single = new Set();
  #batch = new Set();

  constructor(parts) {
    this.#parts = parts;
    this.#session.connect();
    this.#post("Profiler.enable");
    this.#post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** How many (block, magnitude of its count) pairs single inputs reached so far. */
  get size() {
    return this.#single.size;
  }

  /** Whether the one input since the last call reached a pair that no single input had reached. */
  single() {
    return this.#fresh(this.#single);
  }

  /** Whether the inputs since the last call reached a pair together that no batch had: then each is worth a look. */
  batch() {
    return this.#fresh(this.#batch);
  }

  #fresh(seen) {
    const before = seen.size;
    for (const { url, functions } of this.#post("Profiler.takePreciseCoverage").result) {
      if (!this.#parts.some((part) => url.includes(part))) continue;
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges)
          seen.add(`${url}:${startOffset}:${endOffset}:${32 - Math.clz32(count)}`);
      }
    }
    return seen.size > before;
  }

  // An inspector session in its own thread answers before `post` returns.
  #post(method, parameters) {
    let answer;
    this.#session.post(method, parameters, (error, result) => {
      if (error) throw new Error(`${method}: ${error.message}`);
      answer = result;
    });
    return answer;
  }
}
