/**
 * For each of `target` receiver layers, `k` of `source` sharer layers: layers are paired from the last one down, so that extra sharer
 * layers at the front are skipped and extra receiver layers take the sharer's first. The paired layer comes first, then those before it,
 * then those after it.
 */
export function lastAligned(target: number, source: number, k: number): number[][] {
  return Array.from({ length: target }, (_, layer) => {
    const anchor = Math.min(Math.max(source - target + layer, 0), source - 1);
    const before = Array.from({ length: anchor + 1 }, (_, i) => anchor - i);
    const after = Array.from({ length: source - anchor - 1 }, (_, i) => anchor + 1 + i);
    return [...before, ...after].slice(0, k);
  });
}

/** For each of `target` receiver layers, the `k` of `source` sharer layers nearest in relative depth; ties take the lower layer. */
export function nearest(target: number, source: number, k: number): number[][] {
  return Array.from({ length: target }, (_, layer) => {
    const at = depth(layer, target);
    const distances = Array.from({ length: source }, (_, i) => ({
      layer: i,
      distance: Math.abs(depth(i, source) - at),
    }));
    distances.sort((a, b) => a.distance - b.distance);
    return distances.slice(0, k).map((candidate) => candidate.layer);
  });
}

function depth(layer: number, layers: number): number {
  return layers > 1 ? layer / (layers - 1) : 0;
}
