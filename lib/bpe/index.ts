export { tokenizerFile, writeTokenizer } from "./file.js";
export { type BpePattern, pretokens } from "./pretokens.js";
export { type BpeOptions, type BpeVocabulary, chatMlSpecials, trainBpe } from "./train.js";
