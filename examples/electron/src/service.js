// What the models' process does for the window. Messages are plain objects:
//   to it    { type: "ask", id, prompt, maxNewTokens? }    { type: "cancel", id }
//   from it  { type: "status", state: "loading" | "ready" | "failed", text }
//            { type: "token", id, pane, text }              pane: "receiver" | "text" | "cache"
//            { type: "done", id, pane, reason, firstTokenMs, totalMs, tokens }
//            { type: "gates", id, layers: [{ layer, key, value, keyWeight, valueWeight }] }
//            { type: "end", id, cancelled }                 { type: "error", id, code, text }
import { fileURLToPath } from "node:url";
import { connect, connectByText, loadFuser, loadModel } from "cache-to-cache";

const DEFAULT_TOKENS = 64;

/** A folder of the package's own pair, outside the archive: libtorch maps the files itself and cannot look into it. */
function ownPair(name) {
  const packed = fileURLToPath(new URL(`models/pair/${name}`, import.meta.resolve("cache-to-cache/package.json")));
  return packed.replace(/app\.asar(?=[\\/])/, "app.asar.unpacked");
}

/** The package's own pair is small and answers two kinds of prompts: a question, and "Tell me about NAME." */
const OWN_TEXT = {
  ask: (messages) => {
    const name = /[A-Z][a-z]+ [A-Z][a-z]+/.exec(messages.at(-1)?.content ?? "")?.[0];
    return name ? [{ role: "user", content: `Tell me about ${name}.` }] : messages;
  },
  compose: (messages, text) => [{ role: "user", content: `${text.trim()} ${messages.at(-1)?.content ?? ""}` }],
  maxMessageTokens: 96,
};

/** Folders, or what the environment names: two models and the fuser between them. */
function sources() {
  const named = { receiver: process.env.C2C_RECEIVER, sharer: process.env.C2C_SHARER, fuser: process.env.C2C_FUSER };
  return Object.fromEntries(
    Object.entries(named).map(([name, path]) => [name, { kind: "folder", path: path ?? ownPair(name) }]),
  );
}

async function load(onProgress) {
  const { receiver: first, sharer: second, fuser: third } = sources();
  const show = (name) => (event) =>
    onProgress(`${name}: ${event.phase === "weights" ? `${event.tensors} of ${event.of} tensors` : event.file}`);
  const receiver = await loadModel(first, { onProgress: show("receiver") });
  const sharer = await loadModel(second, { onProgress: show("sharer") });
  const fuser = await loadFuser(third, { receiver, sharer });
  const text = connectByText(receiver, sharer, process.env.C2C_RECEIVER ? {} : OWN_TEXT);
  const models = { receiver, sharer, fuser, text, cache: connect(receiver, [{ sharer, fuser }]) };
  // The first pass through a model is slower than all others: it is not what the times are to show.
  onProgress("warming up");
  for (const channel of [models.cache, text]) await channel.generate("Hello", { maxNewTokens: 1 }).text();
  return models;
}

/** The receiver by itself, as a stream of events. */
async function* alone(receiver, prompt, options) {
  const { tokens } = await receiver.encode(prompt);
  const cache = await receiver.prefill(receiver.tokens(tokens.slice(0, -1)), { signal: options.signal });
  try {
    yield* receiver.generate(cache, receiver.tokens(tokens.slice(-1)), options);
  } finally {
    cache.dispose();
  }
}

/** One pane: its tokens as they come, then its times, measured from the start of this pane. */
async function stream(port, id, pane, events) {
  const since = performance.now();
  let first = null;
  for await (const event of events) {
    if (event.type === "token") {
      first ??= performance.now() - since;
      port.post({ type: "token", id, pane, text: event.text });
    } else {
      const totalMs = performance.now() - since;
      port.post({
        type: "done",
        id,
        pane,
        reason: event.reason.kind,
        firstTokenMs: first ?? totalMs,
        totalMs,
        tokens: event.timings.newTokens,
      });
    }
  }
}

async function answer(port, models, { id, prompt, maxNewTokens = DEFAULT_TOKENS }, signal) {
  const options = { maxNewTokens, signal };
  // One after another, so that each time is that of its way alone.
  await stream(port, id, "receiver", alone(models.receiver, prompt, options));
  await stream(port, id, "text", models.text.generate(prompt, options));
  await stream(port, id, "cache", models.cache.generate(prompt, options));
  // The gates come from a prefill of their own, after the times were taken.
  const { cache, reports } = await models.cache.prefill(prompt, { signal });
  cache.dispose();
  port.post({ type: "gates", id, layers: reports.at(-1)?.gates ?? [] });
}

/** Loads the models and serves a port until it closes; then everything is given back and the process can end. */
export async function serve(port) {
  const asked = new Map();
  let closed = false;
  const loading = load((text) => port.post({ type: "status", state: "loading", text }));
  port.onClose(async () => {
    closed = true;
    for (const controller of asked.values()) controller.abort(new Error("the window was closed"));
    const models = await loading.catch(() => undefined);
    for (const handle of [models?.cache, models?.text, models?.fuser, models?.sharer, models?.receiver])
      await handle?.dispose();
  });
  port.onMessage(async (message) => {
    if (message.type === "cancel") return asked.get(message.id)?.abort(new Error("cancelled"));
    if (message.type !== "ask") return;
    const { id } = message;
    const controller = new AbortController();
    asked.set(id, controller);
    try {
      await answer(port, await loading, message, controller.signal);
      port.post({ type: "end", id, cancelled: false });
    } catch (error) {
      if (controller.signal.aborted) port.post({ type: "end", id, cancelled: true });
      else port.post({ type: "error", id, code: error.code ?? error.name, text: error.message });
    } finally {
      asked.delete(id);
    }
  });
  try {
    const { receiver, sharer } = await loading;
    if (closed) return;
    port.post({ type: "status", state: "ready", text: `receiver ${receiver.id}, sharer ${sharer.id}` });
  } catch (error) {
    port.post({ type: "status", state: "failed", text: error.message });
  }
}
