import type { HeadShape, ProjectorSpec, TensorTable } from "../../typings/native.js";
import type { AlignStrategy, FuserKind } from "../types.js";

/** A fuser as it lies in a folder: everything but its weights' bytes. */
export interface FuserFolder {
  readonly kind: FuserKind;
  /** In the order of receiver layers. */
  readonly projectors: ProjectorSpec[];
  readonly receiver: HeadShape;
  readonly sharer: HeadShape;
  readonly table: TensorTable;
  /** The alignment the fuser was trained with. */
  readonly align: AlignStrategy;
  /** The training recipe as the folder holds it; null where there is none. */
  readonly recipe: unknown;
  /** Reads a tensor of the table by name, for a fuser whose weights lie in no file. */
  readonly read?: (name: string) => Promise<Uint8Array>;
}

/** Name of the weights that projector `index` has in a table. */
export function projectorPrefix(index: number): string {
  return `projector_${index}.`;
}
