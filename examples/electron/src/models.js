// The process of the models: an Electron utilityProcess that is given a MessagePort, or a plain child process of Node,
// which speaks the same protocol over its IPC channel.
import { serve } from "./service.js";

/** A MessagePort of Electron as { post, onMessage, onClose }. */
function ofMessagePort(port) {
  return {
    post: (message) => port.postMessage(message),
    onMessage(listener) {
      port.on("message", ({ data }) => listener(data));
      port.start();
    },
    onClose: (listener) => port.on("close", listener),
  };
}

/** The IPC channel of a child process. */
const channel = {
  post: (message) => process.connected && process.send(message),
  onMessage: (listener) => process.on("message", listener),
  onClose: (listener) => process.on("disconnect", listener),
};

if (process.parentPort) process.parentPort.once("message", ({ ports }) => serve(ofMessagePort(ports[0])));
else serve(channel);
