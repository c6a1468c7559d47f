import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { C2CError, ioError } from "../errors.js";
import type { Message } from "../types.js";
import { parseObject } from "./vocabulary.js";

/** `thinking` defaults to false, `generationPrompt` to true. `continueLast` leaves the last message's text open. */
export interface RenderOptions {
  readonly thinking?: boolean | undefined;
  readonly generationPrompt?: boolean | undefined;
  readonly continueLast?: boolean | undefined;
}

async function readOptional(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw ioError(error, path, "read");
  }
}

/** One template of what `chat_template` may be: a string, named templates as a list or as an object ("default", else the first). */
function choose(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return null;
  const named = new Map<string, string>();
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry === "string") named.set(key, entry);
    else if (
      typeof entry === "object" &&
      entry !== null &&
      typeof entry.name === "string" &&
      typeof entry.template === "string"
    ) {
      named.set(entry.name, entry.template);
    }
  }
  return named.get("default") ?? named.values().next().value ?? null;
}

/** A chat template's text and the file that it is from. */
export interface TemplateSource {
  readonly text: string;
  readonly file: string;
}

/** The chat template of a model folder: chat_template.jinja, else chat_template.json, else tokenizer_config.json; null when there is none. */
export async function findTemplate(
  folder: string,
  config: Readonly<Record<string, unknown>>,
): Promise<TemplateSource | null> {
  const [jinjaFile, jsonFile] = [join(folder, "chat_template.jinja"), join(folder, "chat_template.json")];
  const jinja = await readOptional(jinjaFile);
  if (jinja !== null) return { text: jinja, file: jinjaFile };
  const json = await readOptional(jsonFile);
  const own = json === null ? null : choose(parseObject(json, jsonFile)["chat_template"]);
  if (own !== null) return { text: own, file: jsonFile };
  const text = choose(config["chat_template"]);
  return text === null ? null : { text, file: join(folder, "tokenizer_config.json") };
}

/** A model's chat template. */
export class ChatTemplate {
  readonly #template: Template | null;
  readonly #variables: Readonly<Record<string, string>>;

  /** `variables`: bos_token and the like. A template that cannot be parsed is FILE_INVALID. */
  constructor(source: TemplateSource | null, variables: Readonly<Record<string, string>>) {
    this.#variables = variables;
    try {
      this.#template = source === null ? null : new Template(source.text);
    } catch (error) {
      const file = source?.file ?? "";
      const reason = `chat template: ${error instanceof Error ? error.message : String(error)}`;
      throw new C2CError("FILE_INVALID", { file, reason }, `${file}: ${reason}`);
    }
  }

  /** The conversation as the model reads it. UNSUPPORTED without a template, OPTION_INVALID when the template refuses the messages. */
  render(messages: readonly Message[], options: RenderOptions = {}): string {
    if (!this.#template) {
      throw new C2CError("UNSUPPORTED", {
        what: "messages for a model without a chat template",
        supported: ["encodeText", "tokens"],
      });
    }
    const last = options.continueLast === true ? messages.at(-1) : undefined;
    const shown = last ? messages.slice(0, -1) : messages;
    const text = this.#run(
      this.#template,
      shown,
      last !== undefined || (options.generationPrompt ?? true),
      options.thinking ?? false,
    );
    return last ? text + last.content : text;
  }

  #run(template: Template, messages: readonly Message[], generationPrompt: boolean, thinking: boolean): string {
    try {
      return template.render({
        ...this.#variables,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: generationPrompt,
        enable_thinking: thinking,
        tools: null,
        documents: null,
      });
    } catch (error) {
      const reason = `the chat template refuses them: ${error instanceof Error ? error.message : String(error)}`;
      throw new C2CError("OPTION_INVALID", { option: "messages", reason }, `messages: ${reason}`);
    }
  }
}
