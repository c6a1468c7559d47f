// Copies the libraries of the libtorch that `npx cache-to-cache setup` chose to resources/libtorch: an installed app
// brings its own. Headers stay behind.
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const app = fileURLToPath(new URL("..", import.meta.url));
const cli = fileURLToPath(new URL("dist/cli/main.js", import.meta.resolve("cache-to-cache/package.json")));
const { libtorch } = JSON.parse(execFileSync(process.execPath, [cli, "doctor", "--json"], { encoding: "utf8" }));
const target = join(app, "resources/libtorch");
rmSync(target, { recursive: true, force: true });
for (const part of ["lib", "version.py", "build-version"]) {
  const from = join(libtorch.root, part);
  if (existsSync(from)) cpSync(from, join(target, part), { recursive: true });
}
console.log(`libtorch ${libtorch.version} is in ${target}`);
