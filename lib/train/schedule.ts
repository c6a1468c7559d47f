/**
 * The learning rate of step `step` (counted from 0): up from 0 over `warmup` steps, then linearly down to 0 at `total`. With a warm-up
 * the first step's rate is 0, as with transformers' `get_linear_schedule_with_warmup`.
 */
export function linearSchedule(step: number, peak: number, warmup: number, total: number): number {
  if (step < warmup) return (peak * step) / warmup;
  return peak * Math.max(0, (total - step) / Math.max(1, total - warmup));
}
