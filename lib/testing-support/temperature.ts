/** The gate's temperature after `step` optimiser steps: from `initial` to `final` exponentially over `anneal` steps, in float32 as it is kept. */
export function temperature(step: number, anneal: number, initial: number, final: number): number {
  return Math.fround(initial * (final / initial) ** Math.min(step / anneal, 1));
}
