// Hands the port on to the page: a MessagePort cannot go through contextBridge.
const { ipcRenderer } = require("electron");

ipcRenderer.on("models", (event) => window.postMessage("models", "*", event.ports));
