// Makes prebuilds/<platform>-<arch>/: the loader, and the addon under the name of the libtorch it was built for.
//   npm run prebuild
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import prebuildify from "prebuildify";
import { inspect } from "../libtorch/places.mjs";
import { output, run } from "../process.mjs";

const prebuild = promisify(prebuildify);
const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const shim = join(home, "scripts/prebuild", process.platform === "win32" ? "build.cmd" : "build.mjs");
const folder = join(home, "prebuilds", `${process.platform}-${process.arch}`);

if (!run(process.execPath, [join(home, "scripts/setup.mjs"), "--quiet"], { cwd: home }).ok) process.exit(1);
const { root } = JSON.parse(readFileSync(join(home, "build/libtorch.json"), "utf8"));
const { minor, variant, fault } = inspect(root, { headers: true });
if (fault) {
  output(fault);
  process.exit(1);
}

rmSync(folder, { recursive: true, force: true });
const names = { loader: "loader", cache_to_cache: `cache-to-cache.torch-${minor}.${variant}` };
for (const [target, name] of Object.entries(names)) {
  // A folder of its own each: prebuildify takes the one .node it finds, and moves it away.
  const cwd = join(home, "build/prebuild", target);
  rmSync(cwd, { recursive: true, force: true });
  mkdirSync(cwd, { recursive: true });
  chmodSync(shim, 0o755);
  await prebuild({
    cwd,
    out: home,
    name,
    napi: true,
    strip: true,
    quiet: true,
    // Node-API: the binary is the same for every version, so the one that runs will do.
    targets: [{ runtime: "node", target: process.versions.node }],
    nodeGyp: shim,
  });
  const path = join(folder, `${name}.node`);
  output(`${path}: ${(statSync(path).size / 1024).toFixed(0)} KiB`);
}
