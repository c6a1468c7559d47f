import type { CacheState } from "../cache/cache.js";
import type { Tamper } from "../channel/flow.js";
import type { SharerPlan } from "../channel/plan.js";
import { type Control, planOf } from "../evaluate/subject.js";
import { sync } from "../native.js";
import type { Channel, Link, Model, Question } from "../types.js";
import { moments, Normals } from "./noise.js";

/** The sharers read another question, the partner of the one that the receiver reads. */
export function mismatched(channel: Channel, partners: ReadonlyMap<Question, Question>): Control {
  return {
    plan: async (plan, question, response) => {
      const partner = partners.get(question);
      if (!partner) throw new Error(`question ${question.id} has no partner`);
      const other = await planOf(channel, partner.messages, response);
      const sharers = plan.sharers.map((own, i): SharerPlan => {
        const { ids, positions } = other.sharers[i] ?? own;
        return { ...own, ids, positions };
      });
      return { ...plan, sharers };
    },
  };
}

/** Keys and values of the sharers' caches are zero; gates and weights are applied as ever. */
export const zeroed: Control = {
  tamper: () => (_link, cache, start, end) => {
    const zeros = new Float32Array((end - start) * rowSize(cache.model));
    everyPart(cache, (layer, part) => cache.native.write(layer, part, start, zeros));
  },
};

/**
 * The sharers' caches hold normal noise with the right prompt cache's mean and deviation, layer by layer, keys and values each by
 * themselves. The question's id is the seed.
 */
export const noise: Control = {
  tamper: (question) => {
    const normals = new Normals(question.id);
    const known = new Map<string, ReturnType<typeof moments>>();
    return (link, cache, start, end) => {
      everyPart(cache, (layer, part) => {
        const key = `${link} ${layer} ${part}`;
        // Rows of the response, read after the prompt's, take the prompt's moments.
        const { mean, deviation } = known.get(key) ?? moments(cache.native.read(layer, part, start, end));
        known.set(key, { mean, deviation });
        const rows = new Float32Array((end - start) * rowSize(cache.model));
        for (let i = 0; i < rows.length; i++) rows[i] = mean + deviation * normals.next();
        cache.native.write(layer, part, start, rows);
      });
    };
  },
};

/** Whether the receiver's cache has the shape that every fuser expects of its sharer's. */
export function selfFits({ receiver, links }: Channel): boolean {
  return links.every(({ sharer, fuser, span }) => {
    const { kvHeads, headDim } = sharer.shape;
    const fits = kvHeads === receiver.shape.kvHeads && headDim === receiver.shape.headDim;
    const layers = fuser.layerMap.every((layer) => layer === null || layer < receiver.shape.layers);
    return fits && layers && span !== "prompt-and-response";
  });
}

/** The receiver is its own sharer: rows that are fused hold the receiver's own clean keys and values of the same prompt. */
export function self({ receiver, links }: Channel): Control {
  return {
    tamper: (_question, plan): Tamper => {
      return async (link, cache) => {
        const { ids, positions } = plan.receiver;
        using clean = await receiver.prefill(receiver.tokens(ids), { positions });
        for (const layer of layersOf(links[link])) {
          for (const { receiver: from, sharer: to } of plan.sharers[link]?.rows ?? []) {
            for (const part of ["key", "value"] as const) {
              const rows = clean.read(layer, part, from);
              sync(() => cache.native.write(layer, part === "key" ? 0 : 1, to.start, rows));
            }
          }
        }
      };
    },
  };
}

function layersOf(link: Link | undefined): ReadonlySet<number> {
  return new Set((link?.fuser.layerMap ?? []).filter((layer) => layer !== null));
}

function rowSize({ shape }: Model): number {
  return shape.kvHeads * shape.headDim;
}

function everyPart(cache: CacheState, visit: (layer: number, part: 0 | 1) => void): void {
  for (let layer = 0; layer < cache.model.shape.layers; layer++) {
    for (const part of [0, 1] as const) sync(() => visit(layer, part));
  }
}
