export { audit } from "./audit/audit.js";
export { inspectCache } from "./cache/file.js";
export { loadCache } from "./cache/load.js";
export { createPrefixStore } from "./cache/prefix-store.js";
export { connectByText } from "./channel/by-text.js";
export { connect } from "./channel/connect.js";
export { C2CError, type ErrorCode, type ErrorDetails, isC2CError } from "./errors.js";
export { evaluate } from "./evaluate/evaluate.js";
export { readTask } from "./evaluate/read-task.js";
export { type FuseOrder, fuse } from "./fuser/fuse.js";
export { loadFuser } from "./fuser/fuser.js";
export { loadModel } from "./model/model.js";
export { type TrainFuserOptions, trainFuser } from "./train/fuser.js";
export { type Document, type ModelInit, type ModelRecipe, type ModelTrainEvent, trainModel } from "./train/model.js";
export type { Data } from "./train/stream.js";
export type * from "./types.js";

import { noticeOnImport } from "./setup/notice.js";

noticeOnImport();
