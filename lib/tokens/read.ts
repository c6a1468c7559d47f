import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import { createTokenizer, type EncoderParts, encoderParts } from "./encoder.js";
import { NameTable } from "./tables.js";
import { buildVocabulary, checkTokenizerFile, parseObject, type VocabularyTable } from "./vocabulary.js";

/** A folder's tokenizer.json and tokenizer_config.json; `path` is the former's. */
export interface Files {
  readonly path: string;
  readonly json: Record<string, unknown>;
  readonly config: Record<string, unknown>;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

/** FILE_INVALID, IO_FAILED. */
export async function readFiles(folder: string): Promise<Files> {
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  const json = parseObject(await readText(path), path);
  const config = parseObject(await readText(configPath), configPath);
  return { path, json, config };
}

/** A tokenizer as it was read. `encoder` is null for a model without tables: who encodes reads the files again. */
export interface TokenizerParts {
  readonly table: VocabularyTable;
  readonly config: Readonly<Record<string, unknown>>;
  readonly encoder: EncoderParts | null;
}

/** Reads and checks a folder's tokenizer. FILE_INVALID, IO_FAILED, UNSUPPORTED. */
export async function readTokenizer(folder: string): Promise<TokenizerParts> {
  const { path, json, config: all } = await readFiles(folder);
  const { added_tokens_decoder: _, ...config } = all;
  const file = checkTokenizerFile(json, path);
  const { table, others } = buildVocabulary(file, path);
  if (file.model.type === "BPE") {
    return { table, config, encoder: encoderParts(json, config, new NameTable(table.names), others, path) };
  }
  createTokenizer(json, all, path);
  return { table, config, encoder: null };
}
