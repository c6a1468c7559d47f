import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { output } from "./process.mjs";

/** Runs `job` while this process alone holds the lock file: two set-ups in one place would spoil each other. */
export async function locked(lock, job) {
  mkdirSync(dirname(lock), { recursive: true });
  for (let told = false; ; ) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (!alive(lock)) {
      rmSync(lock, { force: true });
      continue;
    }
    if (!told) output("another set-up is running here: waiting for it");
    told = true;
    await new Promise((done) => setTimeout(done, 300));
  }
  const release = () => rmSync(lock, { force: true });
  process.once("exit", release);
  try {
    return await job();
  } finally {
    process.off("exit", release);
    release();
  }
}

function alive(lock) {
  try {
    const pid = Number(readFileSync(lock, "utf8"));
    if (pid === 0) return Date.now() - statSync(lock).mtimeMs < 2000;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}
