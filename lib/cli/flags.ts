import { InvalidArgumentError } from "commander";

/** A whole number from 1, for commander. */
export function integerFlag(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError("a whole number from 1 is needed");
  return Number(text);
}
