import { alignTokens } from "../align/tokens.js";
import type { Reading } from "../cache/prefix.js";
import { checkPositions } from "../model/forward.js";
import { modelState } from "../model/state.js";
import type { Link, Model } from "../types.js";
import type { Plan, SharerPlan } from "./plan.js";

/**
 * A plan whose receiver also reads `response`, the beginning of an answer, after the prompt. The response is not fused, but where a
 * link's span includes it; a prompt that is read row for row ("same") is then fused to its last token, since the last section is
 * the response.
 */
export async function withResponse(
  receiver: Model,
  links: readonly Link[],
  plan: Plan,
  response: Uint32Array,
): Promise<Plan> {
  const { length } = plan.receiver.ids;
  const end = length + response.length;
  const sharers: SharerPlan[] = [];
  for (const [i, sharer] of plan.sharers.entries()) {
    const model = links[i]?.sharer ?? receiver;
    const own = sharer.ids.length;
    const read = await alignTokens(
      modelState(receiver).tokenizer,
      modelState(model).tokenizer,
      response,
      sharer.strategy,
    );
    const added = { receiver: { start: length, end }, sharer: { start: own, end: own + response.length } };
    sharers.push({ ...sharer, ...append(model, sharer, read), rows: [...sharer.rows, added] });
  }
  const last = plan.sections.at(-1);
  const whole = plan.sharers.every(({ strategy }) => strategy === "same");
  const before = plan.sections.slice(0, -1);
  const every = plan.sharers.map((_, i) => i);
  const sections = whole
    ? [
        { start: 0, end: length, links: every },
        { start: length, end, links: [] },
      ]
    : [...before, { start: last?.start ?? 0, end, links: [] }];
  return { kind: plan.kind, receiver: append(receiver, plan.receiver, response), sections, sharers };
}

function append(model: Model, reading: Reading, more: Uint32Array): Reading {
  const ids = new Uint32Array(reading.ids.length + more.length);
  ids.set(reading.ids);
  ids.set(more, reading.ids.length);
  const positions = new Uint32Array(ids.length);
  positions.set(reading.positions);
  const following = checkPositions(model, more.length, reading.positions.at(-1) ?? -1);
  positions.set(following, reading.positions.length);
  return { ids, positions };
}
