import { InvalidArgumentError } from "commander";
import type { Device } from "../index.js";

/** A whole number from 1, for commander. */
export function integerFlag(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError("a whole number from 1 is needed");
  return Number(text);
}

/** "cpu", "cuda" (the first GPU) or "cuda:1", for commander. */
export function deviceFlag(text: string): Device {
  if (text === "cpu") return { kind: "cpu" };
  const found = /^cuda(?::(\d{1,3}))?$/.exec(text);
  if (!found) throw new InvalidArgumentError("cpu, cuda or cuda:1 is needed");
  return { kind: "cuda", index: Number(found[1] ?? 0) };
}
