import type { NativeFuser, NativeLayerReport } from "../../typings/native.js";
import type { Life } from "../handles.js";
import { invalid } from "../options.js";
import type { AlignStrategy, Fuser } from "../types.js";
import type { FuserFolder } from "./folder-types.js";

/** What sibling modules see of a fuser. */
export interface FuserState {
  readonly native: NativeFuser;
  readonly life: Life;
  /** What the fuser was trained with. */
  readonly align: AlignStrategy;
  /** The report of a fusion without rows. */
  readonly idle: readonly NativeLayerReport[];
  readonly folder: FuserFolder;
}

const states = new WeakMap<Fuser, FuserState>();

/** Remembers the state behind a fuser. */
export function keepFuserState(fuser: Fuser, state: FuserState): void {
  states.set(fuser, state);
}

/** The state behind a fuser of this package; OPTION_INVALID for anything else. */
export function fuserState(fuser: Fuser, option = "fuser"): FuserState {
  const state = states.get(fuser);
  if (state === undefined) {
    throw invalid(option, "is not a fuser loaded by this package");
  }
  return state;
}
