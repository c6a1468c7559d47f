#!/usr/bin/env node
import "./silent.js";
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { C2CError } from "../errors.js";
import { addChat } from "./chat.js";
import { addConvert } from "./convert.js";
import { addDemo } from "./demo.js";
import { addDoctor } from "./doctor.js";
import { addGenerate } from "./generate.js";
import { addInspect } from "./inspect.js";
import { addSetup } from "./setup.js";
import { addTrainModel } from "./train-model.js";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly description: string;
  readonly version: string;
};
const program = new Command("cache-to-cache").description(manifest.description).version(manifest.version);
for (const add of [addGenerate, addChat, addInspect, addConvert, addDemo, addTrainModel, addSetup, addDoctor])
  add(program);

try {
  await program.parseAsync();
} catch (error) {
  const code = error instanceof C2CError ? error.code : error instanceof Error ? error.name : "Error";
  const message = error instanceof Error ? error.message : String(error);
  console.error(`error ${code}: ${message.replace(/\s*\n\s*/g, " ")}`);
  process.exitCode = 1;
}
