#!/usr/bin/env node
import "./silent.js";
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { C2CError } from "../errors.js";
import { addAudit } from "./audit.js";
import { addChat } from "./chat.js";
import { addConvert } from "./convert.js";
import { addDemo } from "./demo.js";
import { addDoctor } from "./doctor.js";
import { addEvaluate } from "./evaluate/command.js";
import { addGenerate } from "./generate.js";
import { addInspect } from "./inspect.js";
import { addSetup } from "./setup.js";
import { addTrain } from "./train.js";
import { addTrainModel } from "./train-model.js";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly description: string;
  readonly version: string;
};
const program = new Command("cache-to-cache").description(manifest.description).version(manifest.version);
const commands = [
  addGenerate,
  addChat,
  addInspect,
  addConvert,
  addTrain,
  addTrainModel,
  addEvaluate,
  addAudit,
  addDemo,
  addSetup,
  addDoctor,
];
for (const add of commands) add(program);

// A reader that goes away (`| head`) ends the command without a word; any other failure of stdout is one line.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  console.error(`error IO_FAILED: write to stdout: ${error.code ?? error.message}`);
  process.exit(1);
});

try {
  await program.parseAsync();
} catch (error) {
  const code = error instanceof C2CError ? error.code : error instanceof Error ? error.name : "Error";
  const message = error instanceof Error ? error.message : String(error);
  console.error(`error ${code}: ${message.replace(/\s*\n\s*/g, " ")}`);
  process.exitCode = 1;
}
