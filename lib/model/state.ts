import type { NativeModel } from "../../typings/native.js";
import type { Life } from "../handles.js";
import { invalid } from "../options.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { EncodeOptions, Model, Prompt } from "../types.js";

/** What sibling modules see of a model. */
export interface ModelState {
  readonly native: NativeModel;
  readonly life: Life;
  readonly tokenizer: Tokenizer;
  readonly eos: readonly number[];
  /** What files of its caches call it: a repository, or its folder's name. */
  readonly name: string;
  /** "sha256:…" over config and weights, made once. IO_FAILED, FILE_INVALID where the files are gone or changed. */
  fingerprint(): Promise<string>;
}

const states = new WeakMap<Model, ModelState>();
const prompts = new WeakMap<Prompt, EncodeOptions>();

/** Remembers the state behind a model. */
export function keepModelState(model: Model, state: ModelState): void {
  states.set(model, state);
}

/** The state behind a model of this package; OPTION_INVALID for anything else. */
export function modelState(model: Model, option = "model"): ModelState {
  const state = states.get(model);
  if (state === undefined) {
    throw invalid(option, "is not a model loaded by this package");
  }
  return state;
}

/** Remembers how a prompt was encoded, so that alignment can render it the same way. */
export function keepPromptOptions(prompt: Prompt, options: EncodeOptions): void {
  prompts.set(prompt, options);
}

/** How a prompt was encoded; the defaults for one that was not made here. */
export function promptOptions(prompt: Prompt): EncodeOptions {
  return prompts.get(prompt) ?? {};
}
