import { expectTypeOf } from "expect-type";
import {
  C2CError,
  type Channel,
  type ErrorCode,
  type ErrorDetails,
  type Fuser,
  type Generation,
  type GenerationEvent,
  isC2CError,
  type KvCache,
  loadFuser,
  loadModel,
  type Model,
  type Source,
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
