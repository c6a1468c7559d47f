// Loading, tokens, prompts, models.
import { expectTypeOf } from "expect-type";
import {
  type Device,
  type DType,
  type EncodeOptions,
  type LoadEvent,
  type LoadOptions,
  loadModel,
  type Message,
  type Model,
  type ModelShape,
  type Prompt,
  type Source,
  type TokenId,
  type Tokens,
} from "../../lib/index.js";

declare const model: Model;
declare const tokens: Tokens;

// Token ids are not plain numbers, and plain arrays are not a model's tokens; the way back is free.
expectTypeOf<TokenId>().toExtend<number>();
expectTypeOf<number>().not.toExtend<TokenId>();
expectTypeOf<Uint32Array>().not.toExtend<Tokens>();
expectTypeOf<Tokens>().toExtend<Readonly<Uint32Array>>();

// A source is a folder or a hub repository, and never half of each.
expectTypeOf<{ kind: "folder"; path: string }>().toExtend<Source>();
expectTypeOf<{ kind: "hub"; repo: "owner/name" }>().toExtend<Source>();
expectTypeOf<{ kind: "hub"; repo: "owner/name"; revision: string; folder: string }>().toExtend<Source>();
expectTypeOf<{ kind: "hub"; path: string }>().not.toExtend<Source>();
expectTypeOf<{ kind: "hub"; repo: string }>().not.toExtend<Source>();

expectTypeOf(loadModel).parameters.toEqualTypeOf<[source: Source, options?: LoadOptions | undefined]>();
expectTypeOf(loadModel).returns.resolves.toEqualTypeOf<Model>();
expectTypeOf<NonNullable<LoadOptions["quantize"]>>().toEqualTypeOf<"int8" | "int4">();
expectTypeOf<NonNullable<LoadOptions["dtype"]>>().toEqualTypeOf<DType>();
expectTypeOf<DType>().toEqualTypeOf<"float32" | "bfloat16" | "float16">();
expectTypeOf<Device>().toEqualTypeOf<{ readonly kind: "cpu" } | { readonly kind: "cuda"; readonly index: number }>();
expectTypeOf<Extract<LoadEvent, { phase: "download" }>["total"]>().toEqualTypeOf<number>();
expectTypeOf<Extract<LoadEvent, { phase: "weights" }>["tensors"]>().toEqualTypeOf<number>();

// A handle has an explicit end, and what it says of itself cannot be written.
expectTypeOf(model).toExtend<AsyncDisposable>();
expectTypeOf(model.dispose).returns.toEqualTypeOf<Promise<void>>();
expectTypeOf(model.shape).toEqualTypeOf<ModelShape>();
expectTypeOf<ModelShape["kvHeads"]>().toEqualTypeOf<number>();
expectTypeOf(model.device).toEqualTypeOf<Device>();

expectTypeOf(model.encode).parameters.toEqualTypeOf<
  [prompt: string | readonly Message[], options?: EncodeOptions | undefined]
>();
expectTypeOf(model.encode).returns.resolves.toEqualTypeOf<Prompt>();
expectTypeOf<Prompt["tokens"]>().toEqualTypeOf<Tokens>();
expectTypeOf<Prompt["spans"][number]>().toEqualTypeOf<{
  readonly message: number;
  readonly start: number;
  readonly end: number;
}>();
expectTypeOf<Message["role"]>().toEqualTypeOf<"system" | "user" | "assistant">();
expectTypeOf(model.encodeText).returns.resolves.toEqualTypeOf<Tokens>();
expectTypeOf(model.tokens).parameter(0).toEqualTypeOf<Iterable<number>>();
expectTypeOf(model.tokens).returns.toEqualTypeOf<Tokens>();
expectTypeOf(model.decodeTokens).returns.toEqualTypeOf<string>();
expectTypeOf(model.logits).returns.resolves.toEqualTypeOf<Float32Array>();

export async function wrong() {
  // @ts-expect-error a repository has an owner
  await loadModel({ kind: "hub", repo: "name" });
  // @ts-expect-error a path alone does not say what it is
  await loadModel("models/receiver");
  // @ts-expect-error no such width
  await loadModel({ kind: "folder", path: "." }, { quantize: "int2" });
  // @ts-expect-error a device has a kind
  await loadModel({ kind: "folder", path: "." }, { device: "cpu" });
  // @ts-expect-error ids of no model
  await model.prefill(new Uint32Array(3));
  // @ts-expect-error a cache and then tokens
  model.generate(tokens);
  // @ts-expect-error nobody's role
  await model.encode([{ role: "tool", content: "" }]);
  // @ts-expect-error read only
  model.id = "other";
  // @ts-expect-error what a model made is read only
  tokens[0] = 0;
}
