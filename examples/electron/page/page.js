// The window's side of the protocol in src/service.js. It knows nothing of models: it sends questions over a MessagePort
// and shows what comes back.
const find = (id) => document.getElementById(id);
const panes = new Map(
  ["receiver", "text", "cache"].map((name) => [
    name,
    { output: find(name).querySelector("output"), times: find(name).querySelector(".times") },
  ]),
);
let port;
let asked = 0;

const seconds = (ms) => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`);

/** `running`: a question is being answered. */
function show(running, text) {
  find("ask").disabled = running;
  find("cancel").disabled = !running;
  find("status").textContent = text;
}

const handlers = {
  status({ state, text }) {
    find("ask").disabled = state !== "ready";
    find("status").textContent = `${state}: ${text}`;
  },
  token({ pane, text }) {
    panes.get(pane).output.append(text);
  },
  done({ pane, reason, firstTokenMs, totalMs, tokens }) {
    panes.get(pane).times.textContent =
      `first token ${seconds(firstTokenMs)}, all ${tokens} in ${seconds(totalMs)} (${reason})`;
  },
  gates({ layers }) {
    drawGates(layers);
  },
  end({ cancelled }) {
    show(false, cancelled ? "cancelled" : "done");
  },
  error({ code, text }) {
    show(false, `${code}: ${text}`);
  },
};

/** One row for keys and one for values, one column for each layer; the stronger the weight, the deeper the colour. */
function drawGates(layers) {
  const head = row("th", ["layer", ...layers.map(({ layer }) => String(layer))]);
  const body = ["key", "value"].map((part) => {
    const line = row(
      "td",
      layers.map((gate) => (gate[part] ? gate[`${part}Weight`].toFixed(2) : "–")),
    );
    layers.forEach((gate, index) => {
      const weight = gate[part] ? gate[`${part}Weight`] : 0;
      const cell = line.cells[index];
      cell.style.background = `color-mix(in oklab, #e4572e ${Math.round(weight * 100)}%, transparent)`;
      cell.title = `layer ${gate.layer}, ${part}: ${gate[part] ? `open, mean weight ${weight.toFixed(3)}` : "closed"}`;
    });
    const name = document.createElement("th");
    name.textContent = part;
    line.prepend(name);
    return line;
  });
  find("gates").replaceChildren(head, ...body);
}

function row(kind, texts) {
  const line = document.createElement("tr");
  for (const text of texts) {
    const cell = document.createElement(kind);
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  asked++;
  for (const { output, times } of panes.values()) {
    output.replaceChildren();
    times.textContent = "";
  }
  find("gates").replaceChildren();
  show(true, "answering");
  port.postMessage({ type: "ask", id: asked, prompt: find("prompt").value });
});
find("cancel").addEventListener("click", () => port.postMessage({ type: "cancel", id: asked }));

// The preload script (in Electron) hands over the port to the models' process.
window.addEventListener("message", ({ data, ports }) => {
  if (data !== "models" || ports.length !== 1) return;
  port = ports[0];
  port.onmessage = ({ data: message }) => {
    // Answers to an earlier question are late, and of no interest.
    if (message.id === undefined || message.id === asked) handlers[message.type]?.(message);
  };
});
