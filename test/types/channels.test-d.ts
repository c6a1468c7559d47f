// Fusers, fusion, channels, generations.
import { expectTypeOf } from "expect-type";
import {
  type Alignment,
  type AlignStrategy,
  type Channel,
  type ChannelPrompt,
  type ConnectOptions,
  type Contribution,
  connect,
  connectByText,
  type FuseOrder,
  type FuseReport,
  type Fuser,
  type FuserKind,
  fuse,
  type GateReport,
  type GenerateOptions,
  type Generation,
  type GenerationEvent,
  type KvCache,
  type Link,
  type LoadOptions,
  loadFuser,
  type Message,
  type Model,
  type Pair,
  type Prompt,
  type Sampling,
  type Section,
  type Source,
  type Span,
  type SpanPair,
  type StopReason,
  type TextOptions,
  type Timings,
  type TokenId,
  type TokenPrompt,
  type Tokens,
} from "../../lib/index.js";

declare const model: Model;
declare const fuser: Fuser;
declare const cache: KvCache;
declare const channel: Channel;
declare const generation: Generation;
declare const event: GenerationEvent;

expectTypeOf(loadFuser).parameters.toEqualTypeOf<[source: Source, pair: Pair, options?: LoadOptions | undefined]>();
expectTypeOf(loadFuser).returns.resolves.toEqualTypeOf<Fuser>();
expectTypeOf<Pair>().toEqualTypeOf<{ readonly receiver: Model; readonly sharer: Model }>();
expectTypeOf(fuser).toExtend<AsyncDisposable>();
expectTypeOf<FuserKind>().toEqualTypeOf<"c2c" | "ablation" | "all-in-one">();
expectTypeOf(fuser.kind).toEqualTypeOf<FuserKind>();
expectTypeOf(fuser.gates[0]).toEqualTypeOf<
  { readonly key: number | null; readonly value: number | null } | undefined
>();
expectTypeOf(fuser.align).parameter(0).toEqualTypeOf<Prompt>();
expectTypeOf(fuser.align).returns.resolves.toEqualTypeOf<Alignment>();
expectTypeOf<AlignStrategy>().toEqualTypeOf<"same" | "first" | "longest" | "bytes">();
expectTypeOf<Alignment["fused"]>().toEqualTypeOf<readonly SpanPair[]>();
expectTypeOf<SpanPair>().toEqualTypeOf<{ readonly receiver: Span; readonly sharer: Span }>();

expectTypeOf(fuse).parameter(0).toEqualTypeOf<KvCache>();
expectTypeOf(fuse).parameter(1).toEqualTypeOf<readonly Contribution[]>();
expectTypeOf(fuse).returns.resolves.toEqualTypeOf<readonly FuseReport[]>();
expectTypeOf<FuseOrder>().toEqualTypeOf<"sequential" | "parallel">();
expectTypeOf<FuseReport["gates"]>().toEqualTypeOf<readonly GateReport[]>();
expectTypeOf<GateReport["keyWeight"]>().toEqualTypeOf<number>();

expectTypeOf(connect).parameters.toEqualTypeOf<
  [receiver: Model, links: readonly Link[], options?: ConnectOptions | undefined]
>();
expectTypeOf(connect).returns.toEqualTypeOf<Channel>();
expectTypeOf(connectByText).parameters.toEqualTypeOf<
  [receiver: Model, sharer: Model, options?: TextOptions | undefined]
>();
expectTypeOf(connectByText).returns.toEqualTypeOf<Channel>();
expectTypeOf<ReturnType<NonNullable<TextOptions["ask"]>>>().toEqualTypeOf<readonly Message[]>();
expectTypeOf(channel).toExtend<Disposable>();
expectTypeOf<ChannelPrompt>().toEqualTypeOf<string | readonly Message[] | TokenPrompt>();
expectTypeOf(channel.prefill).parameter(0).toEqualTypeOf<ChannelPrompt>();
expectTypeOf<Awaited<ReturnType<Channel["prefill"]>>["reports"]>().toEqualTypeOf<readonly FuseReport[]>();
expectTypeOf<TokenPrompt["tokens"]>().toEqualTypeOf<Tokens>();
expectTypeOf<NonNullable<TokenPrompt["sections"]>>().toEqualTypeOf<readonly Section[]>();

// One stream for models and channels; the last event is told from tokens by its type.
expectTypeOf(channel.generate).returns.toEqualTypeOf<Generation>();
expectTypeOf(model.generate).returns.toEqualTypeOf<Generation>();
expectTypeOf(model.generate).parameter(2).toEqualTypeOf<GenerateOptions | undefined>();
expectTypeOf(generation).toExtend<AsyncIterable<GenerationEvent>>();
expectTypeOf(generation).toExtend<AsyncDisposable>();
expectTypeOf(generation.text).returns.resolves.toEqualTypeOf<string>();
expectTypeOf(generation.done).returns.resolves.toEqualTypeOf<Extract<GenerationEvent, { type: "done" }>>();
if (event.type === "token") {
  expectTypeOf(event.id).toEqualTypeOf<TokenId>();
  expectTypeOf(event.logits).toEqualTypeOf<Float32Array | undefined>();
} else {
  expectTypeOf(event.timings).toEqualTypeOf<Timings>();
  expectTypeOf(event.reason).toEqualTypeOf<StopReason>();
  if (event.reason.kind === "stop") expectTypeOf(event.reason.match).toEqualTypeOf<string>();
}
expectTypeOf<Extract<Sampling, { kind: "sample" }>["seed"]>().toEqualTypeOf<bigint | undefined>();

export async function wrong() {
  // @ts-expect-error a fuser belongs to two models
  await loadFuser({ kind: "folder", path: "." });
  // @ts-expect-error one sharer is a list of one
  connect(model, { sharer: model, fuser });
  // @ts-expect-error a link needs its fuser
  connect(model, [{ sharer: model }]);
  // @ts-expect-error no such order
  await fuse(cache, [], { order: "random" });
  // @ts-expect-error no such strategy
  await fuser.align(await model.encode(""), { strategy: "last" });
  // @ts-expect-error no such format
  await fuser.save("folder", { format: "pt" });
  // @ts-expect-error greedy has no temperature
  channel.generate("", { sampling: { kind: "greedy", temperature: 1 } });
  // @ts-expect-error seeds are bigints
  channel.generate("", { sampling: { kind: "sample", temperature: 1, seed: 1 } });
  // @ts-expect-error a text is not in a token's event of another type
  if (event.type === "done") event.id;
}
