import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import { bpeParts, createEncoder, type EncoderParts } from "./encoder.js";
import { NameTable } from "./tables.js";
import { buildVocabulary, checkTokenizerFile, parseObject, type VocabularyTable } from "./vocabulary.js";

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

/** A tokenizer as it was read. */
export interface TokenizerParts {
  readonly table: VocabularyTable;
  readonly config: Readonly<Record<string, unknown>>;
  readonly encoder: EncoderParts;
}

/** Reads and checks tokenizer.json and tokenizer_config.json of a folder. FILE_INVALID, IO_FAILED, UNSUPPORTED. */
export async function readTokenizer(folder: string): Promise<TokenizerParts> {
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  const text = await readText(path);
  const json = parseObject(text, path);
  const { added_tokens_decoder: _, ...config } = parseObject(await readText(configPath), configPath);
  const file = checkTokenizerFile(json, path);
  const { table, distinct } = buildVocabulary(file, path);
  // Tables know tokens by their ids: where an id is two names', the library keeps them apart.
  if (file.model.type === "BPE" && distinct) {
    return { table, config, encoder: bpeParts(json, config, new NameTable(table.names), path) };
  }
  const encoder = { json: text, config, tables: null };
  createEncoder(encoder, path);
  return { table, config, encoder };
}
