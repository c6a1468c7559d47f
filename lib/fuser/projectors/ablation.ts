import { c2c } from "./c2c.js";
import type { ProjectorKind } from "./kind.js";

/** C2C's towers with parts left out; level 0 leaves out nothing. */
export const ablation = {
  kind: "ablation",
  class: "AblationProjector",
  options: { ...c2c.options, ablation_level: 0 },
} as const satisfies ProjectorKind;
