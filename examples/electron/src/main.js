// The main process: a window, a process for the models, and a MessagePort between the two. No tensor is ever here.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { app, BrowserWindow, MessageChannelMain, utilityProcess } from "electron";

const here = fileURLToPath(new URL(".", import.meta.url));

/** A process of its own for the models: a crash or a long step never stops the window. */
function startModels() {
  const env = { ...process.env };
  // An installed app brings libtorch with it; in development the one of `npx cache-to-cache setup` is used.
  if (app.isPackaged) env.CACHE_TO_CACHE_LIBTORCH = join(process.resourcesPath, "libtorch");
  return utilityProcess.fork(join(here, "models.js"), [], { env, serviceName: "models", stdio: "inherit" });
}

async function openWindow() {
  const window = new BrowserWindow({
    width: 1200,
    height: 760,
    webPreferences: { preload: join(here, "preload.cjs"), contextIsolation: true, sandbox: true },
  });
  const models = startModels();
  window.once("closed", () => models.kill());
  await window.loadFile(join(here, "../page/index.html"));
  const { port1, port2 } = new MessageChannelMain();
  models.postMessage("connect", [port1]);
  window.webContents.postMessage("models", null, [port2]);
}

await app.whenReady();
await openWindow();
app.on("activate", () => {
  if (BrowserWindow.getAllWindows().length === 0) openWindow();
});
app.on("window-all-closed", () => {
  if (process.platform !== "darwin") app.quit();
});
