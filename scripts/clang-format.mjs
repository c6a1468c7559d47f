// Formats the C++ sources with clang-format; `--check` only says what is not formatted and then ends with 1.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const check = process.argv.includes("--check");
const program = ["clang-format-14", "clang-format"].find((name) => spawnSync(name, ["--version"]).status === 0);

if (program === undefined) {
  console.error(
    "clang-format is not on PATH, C++ sources were not looked at: install it (apt-get install clang-format).",
  );
  process.exitCode = process.env.CI === "true" || !check ? 1 : 0;
} else {
  const files = ["cpp", "test/cpp", "bench/cpp", "fuzz"].flatMap((folder) => {
    try {
      return readdirSync(join(home, folder), { recursive: true })
        .filter((name) => /\.(cpp|h|inl|cu|cuh)$/.test(name))
        .map((name) => join(folder, name));
    } catch {
      return [];
    }
  });
  const mode = check ? ["--dry-run", "--Werror"] : ["-i"];
  const { status } = spawnSync(program, [...mode, ...files], { cwd: home, stdio: "inherit" });
  process.exitCode = status === 0 ? 0 : 1;
}
