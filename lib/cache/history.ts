import type { FusedRows, Fuser, Span } from "../types.js";

/** Who wrote into a cache's rows. Fingerprints take a while: they are made when they are asked for. */
export interface FusionSource {
  readonly kind: Fuser["kind"];
  fuser(): Promise<string>;
  readonly sharer: { readonly name: string; fingerprint(): Promise<string> };
}

interface Entry {
  readonly source: FusionSource;
  /** Ascending and apart; null where they are not known any more. */
  readonly rows: readonly Span[] | null;
}

/** What was fused into a cache, oldest first, through all that moves its rows. */
export class History {
  #entries: readonly Entry[];
  /** Whether a policy moves rows, so that nobody knows where they are. */
  readonly #moves: boolean;

  constructor(moves = false, entries: readonly Entry[] = []) {
    this.#moves = moves;
    this.#entries = entries;
  }

  copy(): History {
    return new History(this.#moves, this.#entries);
  }

  /** `source` wrote over rows. */
  add(source: FusionSource, rows: readonly Span[]): void {
    const written = rows.filter(({ start, end }) => end > start);
    if (written.length === 0) return;
    const known = this.#moves ? null : written;
    const last = this.#entries.at(-1);
    if (last?.source !== source) {
      this.#entries = [...this.#entries, { source, rows: known && merged(known) }];
      return;
    }
    const all = last.rows && known ? merged([...last.rows, ...known]) : null;
    this.#entries = [...this.#entries.slice(0, -1), { source, rows: all }];
  }

  /** Rows [start, end) are gone, and later ones move down. */
  erase(start: number, end: number): void {
    const moved = (row: number): number => (row <= start ? row : Math.max(start, row - (end - start)));
    this.#map((span) => ({ start: moved(span.start), end: moved(span.end) }));
  }

  truncate(length: number): void {
    this.#map((span) => ({ start: span.start, end: Math.min(span.end, length) }));
  }

  /** Of a cache of rows [start, end). */
  slice(start: number, end: number): History {
    const part = new History(this.#moves, this.#entries);
    part.truncate(end);
    part.erase(0, start);
    return part;
  }

  /** Another cache's rows come behind this one's `length`. */
  append(other: History, length: number): void {
    const moved = other.#entries.map(({ source, rows }) => ({
      source,
      rows: this.#moves
        ? null
        : (rows?.map(({ start, end }) => ({ start: start + length, end: end + length })) ?? null),
    }));
    this.#entries = [...this.#entries, ...moved];
  }

  /** With all fingerprints. IO_FAILED, FILE_INVALID where a fuser's or model's files are gone or changed. */
  async describe(): Promise<readonly FusedRows[]> {
    const described: FusedRows[] = [];
    for (const { source, rows } of this.#entries) {
      const { name } = source.sharer;
      const fingerprint = await source.sharer.fingerprint();
      described.push({ kind: source.kind, fuser: await source.fuser(), sharer: { name, fingerprint }, rows });
    }
    return described;
  }

  #map(change: (span: Span) => Span): void {
    this.#entries = this.#entries.flatMap(({ source, rows }) => {
      if (rows === null) return { source, rows };
      const left = rows.map(change).filter(({ start, end }) => end > start);
      return left.length === 0 ? [] : { source, rows: merged(left) };
    });
  }
}

function merged(spans: readonly Span[]): readonly Span[] {
  const result: { start: number; end: number }[] = [];
  for (const { start, end } of spans.toSorted((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else result.push({ start, end });
  }
  return result;
}

/** What a file says of its cache, as a history. */
export function historyOf(fused: readonly FusedRows[], moves: boolean): History {
  const entries = fused.map(({ kind, fuser, sharer, rows }) => ({
    source: {
      kind,
      fuser: async () => fuser,
      sharer: { name: sharer.name, fingerprint: async () => sharer.fingerprint },
    },
    rows,
  }));
  return new History(moves, entries);
}
