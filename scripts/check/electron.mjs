// The Electron example's page in a headless Chromium, against its real models' process.
//   npm run check:electron [-- --picture]      --picture renews docs/electron.png. Needs Chromium (CHROMIUM names it)
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { capture } from "../process.mjs";
import { installApp, startModels } from "./electron-app.mjs";
import { Report } from "./report.mjs";

const home = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = candidates.find((path) => path && capture(path, ["--version"]) !== undefined);
const report = new Report();

/** Serves the page's files. */
function servePage(folder) {
  const server = createServer((request, response) => {
    if (request.url === "/favicon.ico") return response.writeHead(204).end();
    const path = join(folder, request.url === "/" ? "index.html" : request.url);
    try {
      const body = readFileSync(path);
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

/** A check that must hold. */
function expect(what, holds) {
  if (!holds) throw new Error(what);
}

if (executablePath === undefined) {
  console.log("skipped: no Chromium (apt-get install chromium, or set CHROMIUM)\n1 skipped\n0 passed, 0 failed");
} else {
  const folder = mkdtempSync(join(tmpdir(), "cache to cache electron "));
  const app = installApp(folder);
  const server = await servePage(join(app, "page"));
  const models = startModels(app);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 440 } });
    const faults = [];
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    // What the preload script and the main process do in Electron: a port between the page and the models' process.
    await page.exposeFunction("toModels", (message) => models.send(message));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.evaluate(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => window.toModels(data);
      window.fromModels = (message) => port1.postMessage(message);
      window.postMessage("models", "*", [port2]);
    });
    const pass = (message) => page.evaluate((data) => window.fromModels(data), message).catch(() => {});
    for (const message of models.all) await pass(message);
    models.child.on("message", pass);
    const status = (text) =>
      page.waitForFunction((wanted) => document.querySelector("#status").textContent.startsWith(wanted), text, {
        timeout: 60_000,
      });

    await report.step("ready", async () => {
      await status("ready");
      expect("Ask is enabled", await page.isEnabled("#ask"));
    });
    await report.step("three answers with times, gates as a heat map", async () => {
      await page.click("#ask");
      expect("Cancel is enabled while it answers", await page.isEnabled("#cancel"));
      await status("done");
      for (const pane of ["receiver", "text", "cache"]) {
        expect(`${pane} answers`, (await page.textContent(`#${pane} output`)).trim().length > 0);
        expect(`${pane} has times`, /^first token .+, all \d+ in /.test(await page.textContent(`#${pane} .times`)));
      }
      const cells = await page.$$eval("#gates td", (all) =>
        all.map(({ textContent, style }) => [textContent, style.background]),
      );
      expect("cells for keys and values", cells.length >= 2 && cells.length % 2 === 0);
      expect(
        "colours",
        cells.every(([text, colour]) => /^(–|[01]\.\d\d)$/.test(text) && colour.includes("color-mix")),
      );
      return `cache to cache: ${await page.textContent("#cache .times")}`;
    });
    if (process.argv.includes("--picture")) await page.screenshot({ path: join(home, "docs/electron.png") });
    await report.step("cancel", async () => {
      await page.fill("#prompt", "Tell me the profession of Thea Ibsen. ".repeat(40));
      await page.click("#ask");
      await page.click("#cancel");
      await status("cancelled");
      expect("Ask is enabled again", await page.isEnabled("#ask"));
    });
    await report.step("no errors in the page", () => expect(faults.join("; "), faults.length === 0));
  } finally {
    await browser.close();
    server.close();
    await models.stop();
    rmSync(folder, { recursive: true, force: true });
  }
  report.end();
}
