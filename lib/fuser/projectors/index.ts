import { C2CError } from "../../errors.js";
import { ablation } from "./ablation.js";
import { allInOne } from "./all-in-one.js";
import { c2c } from "./c2c.js";
import type { ProjectorKind, ProjectorOptions } from "./kind.js";

export type { ProjectorOptions };

/** All kinds of projectors. */
export const projectorKinds = [c2c, ablation, allInOne] as const;

/** Given by every projector's dimensions, not options. */
const DIMENSIONS: ReadonlySet<string> = new Set([
  "source_dim",
  "target_dim",
  "source_num_heads",
  "target_num_heads",
  "dtype",
]);
/** The kind of a class. Errors: UNSUPPORTED. */
export function projectorKind(name: string): (typeof projectorKinds)[number] {
  const found = projectorKinds.find((kind) => kind.class === name);
  if (!found)
    throw unsupported(
      `projector class ${name}`,
      projectorKinds.map((kind) => kind.class),
    );
  return found;
}

/**
 * A projector's options with defaults filled in: `args` are what its constructor was given; dimensions and dtype among them are left
 * out. Errors: UNSUPPORTED for a class or an option that is not known, OPTION_INVALID for a value of another type.
 */
export function projectorOptions(kind: string, args: Readonly<Record<string, unknown>>): ProjectorOptions {
  const { options: defaults }: ProjectorKind = projectorKind(kind);
  const options: Record<string, number | boolean | string> = { ...defaults };
  for (const [name, value] of Object.entries(args)) {
    if (DIMENSIONS.has(name) || value === null || value === undefined) continue;
    const fallback = Object.hasOwn(defaults, name) ? defaults[name] : undefined;
    if (fallback === undefined) throw unsupported(`option ${name} of ${kind}`, Object.keys(defaults));
    if (
      (typeof value !== "number" && typeof value !== "boolean" && typeof value !== "string") ||
      typeof value !== typeof fallback
    ) {
      const reason = `${JSON.stringify(value)} is no ${typeof fallback}`;
      throw new C2CError("OPTION_INVALID", { option: name, reason }, `${kind}: option ${name}: ${reason}`);
    }
    options[name] = value;
  }
  return options;
}

function unsupported(what: string, supported: readonly string[]): C2CError<"UNSUPPORTED"> {
  return new C2CError("UNSUPPORTED", { what, supported }, `${what} is not supported`);
}
