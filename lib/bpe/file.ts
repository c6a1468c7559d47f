import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import { writeAtomic } from "../weights/atomic.js";
import { preTokenizerEntry } from "./pretokens.js";
import { type BpeVocabulary, chatMlSpecials } from "./train.js";

export type Json = Readonly<Record<string, unknown>>;

/** ChatML with the closing newline after every message; no system message is made up. */
const chatMlTemplate =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** The content of tokenizer.json, as the Hugging Face tokenizers read it. */
export function tokenizerFile({ tokens, merges, specials, pattern }: BpeVocabulary): Json {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: preTokenizerEntry(pattern),
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((name, id) => [name, id])),
      merges,
    },
  };
}

/** The content of tokenizer_config.json: end of turn, padding, and, where the vocabulary has ChatML's tokens, its template. */
function tokenizerConfig({ specials }: BpeVocabulary, context = 2048): Json {
  const [text, , turn] = chatMlSpecials;
  const chat = chatMlSpecials.every((token) => specials.includes(token));
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    ...(chat ? { eos_token: turn, pad_token: text, chat_template: chatMlTemplate } : {}),
    clean_up_tokenization_spaces: false,
    model_max_length: context,
  };
}

/** Writes tokenizer.json and tokenizer_config.json into `folder`, which is made where it is missing. IO_FAILED. */
export async function writeTokenizer(folder: string, vocabulary: BpeVocabulary, context?: number): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw ioError(error, folder, "mkdir");
  }
  await writeAtomic(join(folder, "tokenizer.json"), `${JSON.stringify(tokenizerFile(vocabulary))}\n`);
  await writeAtomic(
    join(folder, "tokenizer_config.json"),
    `${JSON.stringify(tokenizerConfig(vocabulary, context), null, 2)}\n`,
  );
}
