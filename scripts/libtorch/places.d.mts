export type LibtorchFacts =
  | { readonly version: string; readonly minor: string; readonly variant: string; readonly fault?: undefined }
  | { readonly fault: string; readonly version?: undefined; readonly minor?: undefined; readonly variant?: undefined };
export interface Place {
  readonly root: string;
  readonly source: string;
}
export declare const VERSION: string;
export declare const MINOR: string;
export declare const NO_VERSION: string;
export declare const VARIANTS: readonly string[];
export declare function libraryName(name: string): string;
export declare function home(): string;
export declare function cacheFolder(variant?: string): string;
export declare function choiceFile(): string;
export declare function inspect(
  root: string,
  options?: { readonly headers?: boolean; readonly minor?: string },
): LibtorchFacts;
export declare function places(recorded?: string): readonly Place[];
export declare function readChoice(): Place | undefined;
