import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import { connect, createPrefixStore, type GenerationEvent, type Message } from "../index.js";
import { solo } from "./generate.js";
import { type AnswerFlags, addAnswerOptions, answerOptions } from "./options.js";
import { loadLinks } from "./sources.js";

/** `chat`: a conversation on the terminal. Ctrl-C ends an answer, or the chat between answers; Ctrl-D ends the chat. */
export function addChat(program: Command): void {
  addAnswerOptions(program.command("chat").description("talk with a receiver, alone or with its sharers"))
    .option("--json", "no prompts; each answer is one line: its `done` event as JSON")
    .action(async (flags: AnswerFlags & { json?: boolean }) => {
      await using loaded = await loadLinks(flags);
      const { receiver, links } = loaded;
      using channel = links.length > 0 ? connect(receiver, links, flags.order ? { order: flags.order } : {}) : null;
      // What the receiver alone has read; a channel keeps its own.
      using prefixes = createPrefixStore();
      const messages: Message[] = flags.system === undefined ? [] : [{ role: "system", content: flags.system }];
      const lines = createInterface({
        input: process.stdin,
        output: flags.json ? undefined : process.stdout,
        prompt: "> ",
      });
      let answering: AbortController | null = null;
      lines.on("SIGINT", () => (answering ? answering.abort() : lines.close()));
      if (!flags.json) lines.prompt();
      for await (const line of lines) {
        if (line.trim() !== "") {
          messages.push({ role: "user", content: line });
          answering = new AbortController();
          const options = { ...answerOptions(flags), signal: answering.signal };
          const text = await answer(
            channel ? channel.generate(messages, options) : solo(receiver, messages, options, prefixes),
            flags.json,
          );
          answering = null;
          messages.push({ role: "assistant", content: text });
        }
        if (!flags.json) lines.prompt();
      }
    });
}

/** Streams an answer to stdout (or prints it as JSON); what was said before an abort counts as the answer. */
async function answer(events: AsyncIterable<GenerationEvent>, json = false): Promise<string> {
  let text = "";
  try {
    for await (const event of events) {
      if (event.type === "done" && json) process.stdout.write(JSON.stringify(event));
      if (event.type !== "token") continue;
      if (!json) process.stdout.write(event.text);
      text += event.text;
    }
  } catch (error) {
    if (!(error instanceof Error && error.name === "AbortError")) throw error;
    process.stdout.write(" [ended]");
  }
  process.stdout.write("\n");
  return text;
}
