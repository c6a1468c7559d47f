export declare class Failure extends Error {}
export declare function output(line: string): void;
export declare function run(
  command: string,
  args: readonly string[],
  options?: object,
): { readonly ok: boolean; readonly missing: boolean };
export declare function capture(command: string, args: readonly string[], timeout?: number): string | undefined;
export declare function reconfigure(folder: string, wanted: Readonly<Record<string, string>>): boolean;
