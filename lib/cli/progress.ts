const WIDTH = 24;

/** One line on stderr that is rewritten; silent where stderr is no terminal. */
export class Progress implements Disposable {
  readonly #on = process.stderr.isTTY === true;
  #shown = "";

  /** `done` from 0 to 1. */
  show(label: string, done: number): void {
    if (!this.#on) return;
    const line = `${bar(done, WIDTH)} ${Math.floor(done * 100)
      .toString()
      .padStart(3)} % ${label}`;
    if (line === this.#shown) return;
    this.#shown = line;
    process.stderr.write(`\r\u001b[2K${line}`);
  }

  [Symbol.dispose](): void {
    if (this.#shown !== "") process.stderr.write("\r\u001b[2K");
  }
}

/** Runs work that says how far its parts are, with a bar that is gone at its end. */
export async function withBar<T>(run: (onProgress: (part: string, done: number) => void) => Promise<T>): Promise<T> {
  using bar = new Progress();
  return await run((part, done) => bar.show(part, done));
}

/** A bar of `width` characters; `share` from 0 to 1. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(Math.max(share, 0), 1) * width);
  return "█".repeat(full) + "░".repeat(width - full);
}
