#!/usr/bin/env node
// What prebuildify takes for node-gyp: gives it the module named like the current folder out of the build that set-up made.
import { copyFileSync, mkdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const name = `${basename(process.cwd())}.node`;
mkdirSync("build/Release", { recursive: true });
copyFileSync(join(home, "build/Release", name), join("build/Release", name));
