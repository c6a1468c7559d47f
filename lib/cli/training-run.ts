import { open } from "node:fs/promises";
import { join } from "node:path";
import { lineChart } from "../chart.js";
import { ioError } from "../errors.js";
import { writeAtomic } from "../weights/atomic.js";
import { readTextIfThere } from "../weights/file.js";

/** One optimiser step or one validation, as the log keeps it. */
export interface LogLine {
  readonly type: "step" | "validation";
  readonly step: number;
  readonly loss: number;
  readonly openGates?: number;
}

/** Lines are written together, at most this many at a time. */
const BLOCK = 20;

/**
 * The curve of a training run, kept beside its result as `log.jsonl`, so that a resumed run draws the whole of it. What a resumed run
 * repeats replaces what the interrupted one wrote.
 */
export class TrainingLog {
  readonly #path: string;
  readonly #lines: LogLine[];
  #waiting: string[] = [];
  #begun = false;

  private constructor(path: string, lines: LogLine[]) {
    this.#path = path;
    this.#lines = lines;
  }

  /** Opens the log of a run in `folder`; without `resume` it begins anew. A last line that was cut short is dropped. IO_FAILED. */
  static async open(folder: string, resume: boolean): Promise<TrainingLog> {
    const path = join(folder, "log.jsonl");
    const text = resume ? ((await readTextIfThere(path)) ?? "") : "";
    return new TrainingLog(path, text.split("\n").flatMap(parseLine));
  }

  /** The last line of its kind; undefined where there is none. */
  last(type: LogLine["type"]): LogLine | undefined {
    return this.#lines.findLast((line) => line.type === type);
  }

  async add(event: LogLine): Promise<void> {
    if (!this.#begun) await this.#begin(event.step);
    const { type, step, loss, openGates } = event;
    const line: LogLine = { type, step, loss, ...(openGates === undefined ? {} : { openGates }) };
    this.#lines.push(line);
    this.#waiting.push(`${JSON.stringify(line)}\n`);
    if (this.#waiting.length >= BLOCK) await this.flush();
  }

  async #begin(step: number): Promise<void> {
    // A validation's number is that of the steps taken before it.
    const kept = this.#lines.filter((line) => line.step < step || (line.type === "validation" && line.step === step));
    this.#lines.splice(0, this.#lines.length, ...kept);
    await writeAtomic(this.#path, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
    this.#begun = true;
  }

  /** Writes what waits. IO_FAILED. */
  async flush(): Promise<void> {
    const text = this.#waiting.join("");
    this.#waiting = [];
    if (text === "") return;
    try {
      const handle = await open(this.#path, "a");
      try {
        await handle.writeFile(text);
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw ioError(error, this.#path, "write");
    }
  }

  /** Loss (and open gates, where there are any) over steps, as SVG, into `path`. IO_FAILED. */
  async chart(path: string, title: string): Promise<void> {
    const steps = this.#lines.filter(({ type }) => type === "step");
    const validations = this.#lines.filter(({ type }) => type === "validation");
    const loss = (lines: readonly LogLine[]) => lines.map(({ step, loss }) => [step, loss] as const);
    const gates = steps.flatMap(({ step, openGates }) => (openGates === undefined ? [] : [[step, openGates] as const]));
    const svg = lineChart({
      title,
      x: "optimiser step",
      panels: [
        {
          y: "loss, nats a token",
          low: 0,
          series: [
            { name: "training", points: smooth(loss(steps)) },
            ...(validations.length > 0 ? [{ name: "validation", points: loss(validations) }] : []),
          ],
        },
        ...(gates.length > 0
          ? [{ y: "open gates", low: 0, series: [{ name: "open gates", points: thin(gates) }] }]
          : []),
      ],
    });
    await writeAtomic(path, svg);
  }
}

function parseLine(text: string): LogLine[] {
  try {
    return text === "" ? [] : [JSON.parse(text) as LogLine];
  } catch {
    return [];
  }
}

type Point = readonly [number, number];
/** Most points of a curve. */
const POINTS = 400;

/** Means over equal stretches, where there are more points than can be seen. */
function smooth(points: readonly Point[]): readonly Point[] {
  const size = Math.ceil(points.length / POINTS);
  const mean = (part: readonly Point[], index: 0 | 1) =>
    part.reduce((sum, point) => sum + point[index], 0) / part.length;
  return Array.from({ length: Math.ceil(points.length / Math.max(size, 1)) }, (_, i) => {
    const part = points.slice(i * size, (i + 1) * size);
    return [mean(part, 0), mean(part, 1)] as const;
  });
}

function thin(points: readonly Point[]): readonly Point[] {
  const size = Math.ceil(points.length / POINTS);
  return points.filter((_, i) => i % size === 0 || i === points.length - 1);
}

/** What Ctrl-C aborts a run with. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Aborts on the first Ctrl-C; the second one ends the process at once. Dispose to stop listening. */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #listener = (): void => {
    if (this.signal.aborted) process.exit(130);
    this.#controller.abort(new Interrupted("interrupted"));
  };

  constructor() {
    process.on("SIGINT", this.#listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#listener);
  }
}

/** Tells how long the remaining steps take, by the pace so far. */
export class Pace {
  readonly #started = performance.now();
  #first: number | null = null;

  /** "3 min left"; empty before there is a pace. `total` null: not known. */
  left(step: number, total: number | null): string {
    this.#first ??= step;
    const done = step - this.#first;
    if (total === null || done <= 0) return "";
    return `${duration(((performance.now() - this.#started) / 1000 / done) * (total - step))} left`;
  }
}

/** Seconds for people. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
