export { alignChat, type ChatAlignment, type PositionedTokens } from "./chat.js";
export { alignChatReference, type ReferenceAlignment, type ReferenceAlignOptions } from "./padded.js";
export { type AlignedTokens, alignRuns, alignTokens } from "./tokens.js";
