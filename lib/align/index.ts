export { alignChat, type ChatAlignment, type PositionedTokens } from "./chat.js";
export { type AlignedTokens, alignRuns, alignTokens } from "./tokens.js";
