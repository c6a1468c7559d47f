// The parts of node-gyp-build that read names of folders and files; it has no types of its own.
declare module "node-gyp-build" {
  interface Naming {
    parseTuple(name: string): object | undefined;
    matchTuple(platform: string, arch: string): (tuple: object | undefined) => boolean;
    parseTags(file: string): object | undefined;
    matchTags(runtime: string, abi: string): (tags: object | undefined) => boolean;
  }
  const naming: Naming;
  export default naming;
}
