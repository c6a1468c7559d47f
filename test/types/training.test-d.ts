// Training of fusers and models.
import { expectTypeOf } from "expect-type";
import {
  type Data,
  type Document,
  type Fuser,
  type FuserRecipe,
  type Message,
  type ModelInit,
  type ModelRecipe,
  type ModelTrainEvent,
  type Pair,
  type ProjectorChoice,
  type ProjectorClass,
  type Sample,
  type Tokens,
  type TrainEvent,
  type TrainFuserOptions,
  trainFuser,
  trainModel,
} from "../../lib/index.js";

declare const pair: Pair;
declare const event: TrainEvent;
declare const modelEvent: ModelTrainEvent;

expectTypeOf(trainFuser).parameters.toEqualTypeOf<
  [pair: Pair, data: Data<Sample>, recipe?: FuserRecipe | undefined, options?: TrainFuserOptions | undefined]
>();
expectTypeOf(trainFuser).returns.toExtend<AsyncIterable<TrainEvent>>();
expectTypeOf<Sample[]>().toExtend<Data<Sample>>();
expectTypeOf<AsyncGenerator<Sample>>().toExtend<Data<Sample>>();
expectTypeOf<Sample["sharerMessages"]>().toEqualTypeOf<readonly Message[] | undefined>();
expectTypeOf<TrainFuserOptions["init"]>().toEqualTypeOf<Fuser | undefined>();

// Every option of a recipe may be left out.
expectTypeOf<Record<never, never>>().toExtend<FuserRecipe>();
expectTypeOf<FuserRecipe["seed"]>().toEqualTypeOf<bigint | undefined>();
expectTypeOf<ProjectorClass>().toEqualTypeOf<"C2CProjector" | "AblationProjector" | "AllInOneProjector">();
expectTypeOf<ProjectorChoice["kind"]>().toEqualTypeOf<ProjectorClass>();

// Four kinds of events, told by their type.
expectTypeOf<TrainEvent["type"]>().toEqualTypeOf<"step" | "validation" | "checkpoint" | "done">();
if (event.type === "step") {
  expectTypeOf(event.openGates).toEqualTypeOf<number>();
  expectTypeOf(event.skipped).toEqualTypeOf<number>();
}
if (event.type === "checkpoint") expectTypeOf(event.folder).toEqualTypeOf<string>();
if (event.type === "done") expectTypeOf(event.fuser).toEqualTypeOf<Fuser>();

expectTypeOf(trainModel).parameter(0).toEqualTypeOf<ModelInit>();
expectTypeOf(trainModel).parameter(1).toEqualTypeOf<Data<Document>>();
expectTypeOf(trainModel).parameter(2).toEqualTypeOf<ModelRecipe>();
expectTypeOf(trainModel).parameter(3).toEqualTypeOf<{
  readonly folder: string;
  readonly resume?: boolean;
  readonly signal?: AbortSignal;
}>();
expectTypeOf(trainModel).returns.toExtend<AsyncIterable<ModelTrainEvent>>();
expectTypeOf<{ config: unknown; tokenizer: string }>().toExtend<ModelInit>();
expectTypeOf<{ folder: string }>().toExtend<ModelInit>();
expectTypeOf<Document["tokens"]>().toEqualTypeOf<Tokens | Uint32Array>();
if (modelEvent.type === "done") expectTypeOf(modelEvent.folder).toEqualTypeOf<string>();

export async function wrong() {
  // @ts-expect-error a pair, not a receiver
  trainFuser(pair.receiver, []);
  // @ts-expect-error no such option
  trainFuser(pair, [], { lr: 1e-4 });
  // @ts-expect-error a class of the reference
  trainFuser(pair, [], { projector: { kind: "c2c" } });
  // @ts-expect-error a sample has messages
  trainFuser(pair, [{ prompt: "" }]);
  // @ts-expect-error steps must be said
  trainModel({ folder: "model" }, [], {}, { folder: "out" });
  // @ts-expect-error somewhere to write to
  trainModel({ folder: "model" }, [], { steps: 1 });
  // @ts-expect-error a validation has no gradient
  if (event.type === "validation") event.gradNorm;
}
