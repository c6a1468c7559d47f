import { expectTypeOf } from "expect-type";
import {
  type AuditReport,
  audit,
  C2CError,
  type Channel,
  type ErrorCode,
  type ErrorDetails,
  type EvalEvent,
  evaluate,
  type Fuser,
  type Generation,
  type GenerationEvent,
  isC2CError,
  type KvCache,
  loadFuser,
  loadModel,
  type Model,
  type Question,
  readTask,
  type Source,
  type Task,
  type TokenId,
  type Tokens,
} from "../../lib/index.js";

// Token ids are not plain numbers, and plain arrays are not a model's tokens.
expectTypeOf<TokenId>().toExtend<number>();
expectTypeOf<number>().not.toExtend<TokenId>();
expectTypeOf<Uint32Array>().not.toExtend<Tokens>();

// A source is a folder or a hub repository, and never half of each.
expectTypeOf<{ kind: "folder"; path: string }>().toExtend<Source>();
expectTypeOf<{ kind: "hub"; repo: "owner/name" }>().toExtend<Source>();
expectTypeOf<{ kind: "hub"; path: string }>().not.toExtend<Source>();
expectTypeOf<{ kind: "hub"; repo: string }>().not.toExtend<Source>();

// Loading is asynchronous; handles have an explicit end.
expectTypeOf(loadModel).returns.resolves.toEqualTypeOf<Model>();
expectTypeOf(loadFuser).returns.resolves.toEqualTypeOf<Fuser>();
expectTypeOf<Model>().toExtend<AsyncDisposable>();
expectTypeOf<KvCache>().toExtend<Disposable>();
expectTypeOf<Channel>().toExtend<Disposable>();
expectTypeOf<Generation>().toExtend<AsyncIterable<GenerationEvent>>();

// An error's code decides its details.
expectTypeOf<C2CError<"CACHE_FULL">["details"]>().toEqualTypeOf<ErrorDetails["CACHE_FULL"]>();
expectTypeOf<C2CError["code"]>().toEqualTypeOf<ErrorCode>();
const error: unknown = new C2CError("CACHE_FULL", { length: 2, capacity: 1 });
if (isC2CError(error, "CACHE_FULL")) expectTypeOf(error.details.capacity).toEqualTypeOf<number>();

// A model and a channel are evaluated alike; the last event is told from answers by its type.
expectTypeOf(evaluate).parameter(0).toEqualTypeOf<Model | Channel>();
expectTypeOf(evaluate).returns.toEqualTypeOf<AsyncIterable<EvalEvent>>();
expectTypeOf<Extract<EvalEvent, { type: "done" }>["accuracy"]>().toEqualTypeOf<number>();
expectTypeOf(readTask).returns.toEqualTypeOf<Task>();
expectTypeOf<{ id: string; messages: []; answer: string }>().toExtend<Question>();
expectTypeOf<readonly Question[]>().toExtend<Task["questions"]>();

// Only a channel is audited; parts that may not be asked are null, and a verdict is one of three.
expectTypeOf(audit).parameter(0).toEqualTypeOf<Channel>();
expectTypeOf(audit).returns.resolves.toEqualTypeOf<AuditReport>();
expectTypeOf<AuditReport["accuracy"]["self" | "text"]>().toEqualTypeOf<number | null>();
expectTypeOf<AuditReport["accuracy"]["correct" | "mismatched" | "zeroed" | "noise"]>().toEqualTypeOf<number>();
expectTypeOf<AuditReport["verdict"]>().toEqualTypeOf<"content crosses" | "no detectable content" | "harmful">();
