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

/** A bar of `width` characters; `share` from 0 to 1. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(Math.max(share, 0), 1) * width);
  return "█".repeat(full) + "░".repeat(width - full);
}
