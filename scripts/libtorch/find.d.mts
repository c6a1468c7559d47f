export interface Libtorch {
  readonly root: string;
  readonly version: string;
  readonly source: string;
  readonly fresh?: boolean;
}
export declare function findLibtorch(options?: {
  readonly previous?: unknown;
  readonly variant?: string;
  readonly headers?: boolean;
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}): Promise<Libtorch>;
export declare function choose(found: Libtorch): void;
