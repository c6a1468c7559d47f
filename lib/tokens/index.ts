export type { MessageSpan } from "./spans.js";
export { StopMatcher } from "./stop.js";
export { TokenStream } from "./stream.js";
export type { RenderOptions } from "./template.js";
export { type SpecialIds, type TokenizedPrompt, Tokenizer } from "./tokenizer.js";
