// cache-to-cache/testing.
import { expectTypeOf } from "expect-type";
import type { AlignStrategy, Model, Pair, Tokens } from "../../lib/index.js";
import {
  alignSequence,
  extractAnswer,
  type HeadShape,
  layerMap,
  liveHandles,
  type ProjectOptions,
  type ProjectorRows,
  type ProjectorSource,
  project,
  segments,
  type TensorEntry,
  type TensorTable,
  type TrainingSession,
  type TrainingSource,
  temperatureAt,
  trainingSession,
} from "../../lib/testing.js";

expectTypeOf(project).parameters.toEqualTypeOf<
  [source: ProjectorSource, rows: ProjectorRows, tokens: number, options?: ProjectOptions | undefined]
>();
expectTypeOf(project).returns.resolves.toEqualTypeOf<{ key: Float32Array; value: Float32Array }>();
expectTypeOf<ProjectorSource["receiver"]>().toEqualTypeOf<HeadShape>();
expectTypeOf<ProjectorSource["table"]>().toEqualTypeOf<TensorTable>();
expectTypeOf<TensorTable["tensors"]>().toEqualTypeOf<readonly TensorEntry[]>();
expectTypeOf(layerMap).parameter(0).toEqualTypeOf<"last-aligned" | "nearest">();
expectTypeOf(layerMap).returns.toEqualTypeOf<number[][]>();
expectTypeOf(temperatureAt).returns.toEqualTypeOf<number>();
expectTypeOf(alignSequence).parameters.toEqualTypeOf<
  [receiver: Model, sharer: Model, tokens: Tokens, strategy: AlignStrategy]
>();
expectTypeOf(alignSequence).returns.resolves.toEqualTypeOf<Tokens>();
expectTypeOf(liveHandles).returns.toHaveProperty("cache").toEqualTypeOf<number>();
expectTypeOf(trainingSession).parameter(0).toEqualTypeOf<Pair>();
expectTypeOf(trainingSession).parameter(1).toEqualTypeOf<TrainingSource>();
expectTypeOf(trainingSession).returns.resolves.toEqualTypeOf<TrainingSession>();
expectTypeOf<TrainingSession>().toExtend<AsyncDisposable>();
expectTypeOf(extractAnswer).toBeFunction();
expectTypeOf(segments).toBeFunction();

export async function wrong() {
  // @ts-expect-error no such map
  layerMap("first", 3, 3);
}
