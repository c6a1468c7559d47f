import type { Command } from "commander";
import {
  connect,
  type FuseReport,
  type GenerateOptions,
  type GenerationEvent,
  type Message,
  type Model,
  type PrefixStore,
} from "../index.js";
import { type AnswerFlags, addAnswerOptions, answerOptions } from "./options.js";
import { loadLinks } from "./sources.js";

/** `generate`: one answer, streamed to stdout, or one JSON object with --json. */
export function addGenerate(program: Command): void {
  addAnswerOptions(program.command("generate").description("answer one prompt"))
    .requiredOption("--prompt <text>", "the user's message")
    .option("--json", "print one JSON object: text, reason, timings, reports")
    .action(async (flags: AnswerFlags & { readonly prompt: string; readonly json?: boolean }) => {
      const controller = new AbortController();
      process.once("SIGINT", () => controller.abort(new Error("interrupted")));
      await using loaded = await loadLinks(flags, controller.signal);
      const { receiver, links } = loaded;
      const messages: readonly Message[] = [
        ...(flags.system === undefined ? [] : [{ role: "system", content: flags.system } as const]),
        { role: "user", content: flags.prompt },
      ];
      const options = { ...answerOptions(flags), signal: controller.signal };
      let reports: readonly FuseReport[] = [];
      if (links.length === 0) {
        await write(solo(receiver, messages, options), flags.json === true, reports);
        return;
      }
      using channel = connect(receiver, links, { prefixes: false, ...(flags.order && { order: flags.order }) });
      if (flags.json) {
        const filled = await channel.prefill(messages, options);
        reports = filled.reports;
        filled.cache.dispose();
      }
      await write(channel.generate(messages, options), flags.json === true, reports);
    });
}

/** One model without any sharer. `prefixes`: where it finds what it has read before, and leaves what it has read. */
export async function* solo(
  model: Model,
  messages: readonly Message[],
  options: ReturnType<typeof answerOptions> & { readonly signal: AbortSignal },
  prefixes?: PrefixStore,
): AsyncGenerator<GenerationEvent> {
  const { tokens } = await model.encode(messages, options.thinking === undefined ? {} : { thinking: options.thinking });
  using from = prefixes?.find(model, tokens).cache ?? null;
  const read = model.tokens(tokens.slice(0, -1));
  using cache = await model.prefill(read, { signal: options.signal, ...(from && { from }) });
  try {
    yield* model.generate(cache, model.tokens(tokens.slice(-1)), generationOnly(options));
  } finally {
    prefixes?.put(cache);
  }
}

function generationOnly(options: ReturnType<typeof answerOptions>): GenerateOptions {
  const { thinking: _thinking, ...rest } = options;
  return rest;
}

async function write(
  events: AsyncIterable<GenerationEvent>,
  json: boolean,
  reports: readonly FuseReport[],
): Promise<void> {
  for await (const event of events) {
    if (event.type === "token") {
      if (!json) process.stdout.write(event.text);
    } else if (json) {
      const { text, reason, timings } = event;
      console.log(JSON.stringify({ text, reason, timings, reports }));
    } else process.stdout.write("\n");
  }
}
