// The Electron example as far as it goes without Electron: its models' process as a plain child process of Node.
import { fork } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Copies the app to a folder, with this package among its dependencies; the app's folder. */
export function installApp(folder) {
  const app = join(folder, "app");
  cpSync(join(home, "examples/electron"), app, { recursive: true });
  mkdirSync(join(app, "node_modules"), { recursive: true });
  symlinkSync(home, join(app, "node_modules/cache-to-cache"), "junction");
  return app;
}

/** The models' process: `send(message)`, `next(wanted)` (the first message from now on that fits), `all`, `stop()`. */
export function startModels(app, env = {}) {
  const child = fork(join(app, "src/models.js"), [], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const all = [];
  const waiting = new Set();
  child.on("message", (message) => {
    all.push(message);
    for (const wait of waiting) wait(message);
  });
  const next = (wanted) =>
    new Promise((resolve, reject) => {
      const gone = (code) => reject(new Error(`the models' process ended with ${code}`));
      const wait = (message) => {
        if (!wanted(message)) return;
        waiting.delete(wait);
        child.off("exit", gone);
        resolve(message);
      };
      child.once("exit", gone);
      waiting.add(wait);
    });
  /** Closes the channel, as a closed window does; the exit code. */
  const stop = async () => {
    const ended = once(child, "exit");
    child.disconnect();
    const [code, signal] = await ended;
    return code ?? signal;
  };
  return { child, all, next, stop, send: (message) => child.send(message) };
}
