// Evaluation and audit.
import { expectTypeOf } from "expect-type";
import {
  type AuditOptions,
  type AuditReport,
  audit,
  type Channel,
  type EvalEvent,
  type EvaluateOptions,
  evaluate,
  type Gain,
  type Judgement,
  type Model,
  type Question,
  readTask,
  type Task,
  type TaskOptions,
  type Timings,
} from "../../lib/index.js";

declare const model: Model;
declare const channel: Channel;
declare const task: Task;
declare const event: EvalEvent;

// A model and a channel are evaluated alike; the last event is told from answers by its type.
expectTypeOf(evaluate).parameters.toEqualTypeOf<
  [subject: Model | Channel, task: Task, options?: EvaluateOptions | undefined]
>();
expectTypeOf(evaluate).returns.toEqualTypeOf<AsyncIterable<EvalEvent>>();
if (event.type === "answer") {
  expectTypeOf(event.predicted).toEqualTypeOf<string | null>();
  expectTypeOf(event.timings).toEqualTypeOf<Timings>();
} else {
  expectTypeOf(event.accuracy).toEqualTypeOf<number>();
  expectTypeOf(event.byGroup).toEqualTypeOf<Readonly<Record<string, number>>>();
}
expectTypeOf(readTask).parameters.toEqualTypeOf<[layout: string, path: string, options?: TaskOptions | undefined]>();
expectTypeOf(readTask).returns.toEqualTypeOf<Task>();
expectTypeOf<{ id: string; messages: []; answer: string }>().toExtend<Question>();
expectTypeOf<readonly Question[]>().toExtend<Task["questions"]>();
expectTypeOf<AsyncGenerator<Question>>().toExtend<Task["questions"]>();
expectTypeOf<ReturnType<NonNullable<Task["judge"]>>>().toEqualTypeOf<Judgement>();
expectTypeOf<NonNullable<TaskOptions["prompt"]>>().toEqualTypeOf<"direct" | "reasoning" | "plain">();

// Only a channel is audited; parts that may not be asked are null, and a verdict is one of three.
expectTypeOf(audit).parameters.toEqualTypeOf<[channel: Channel, task: Task, options?: AuditOptions | undefined]>();
expectTypeOf(audit).returns.resolves.toEqualTypeOf<AuditReport>();
expectTypeOf<AuditReport["accuracy"]["self" | "text"]>().toEqualTypeOf<number | null>();
expectTypeOf<AuditReport["accuracy"]["correct" | "mismatched" | "zeroed" | "noise"]>().toEqualTypeOf<number>();
expectTypeOf<AuditReport["contentGain" | "benefit"]>().toEqualTypeOf<Gain>();
expectTypeOf<AuditReport["verdict"]>().toEqualTypeOf<"content crosses" | "no detectable content" | "harmful">();
expectTypeOf<AuditOptions["text"]>().toEqualTypeOf<Channel | undefined>();

export async function wrong() {
  // @ts-expect-error a model alone has nothing that crosses
  await audit(model, task);
  // @ts-expect-error no such method
  evaluate(model, { name: "", questions: [], method: "vote" });
  // @ts-expect-error a question has an answer
  evaluate(model, { name: "", questions: [{ id: "1", messages: [] }], method: "exact" });
  // @ts-expect-error one channel, by text
  await audit(channel, task, { text: model });
}
