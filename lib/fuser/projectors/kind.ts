import type { ProjectorSpec } from "../../../typings/native.js";

/** Values of one projector's options, under the reference's names. */
export type ProjectorOptions = ProjectorSpec["options"];

/** A kind of projector: a file in this folder and a line in index.ts, and a file and a line of kinds.inl in cpp/fuser. */
export interface ProjectorKind {
  /** The name in the public API, `Fuser.kind`. */
  readonly kind: string;
  /** The reference's class, which fuser folders name; as its line in cpp/fuser/kinds.inl does. */
  readonly class: string;
  /** Every option with the class's default. */
  readonly options: ProjectorOptions;
}
