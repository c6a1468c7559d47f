import { difference, mcnemar, pair, wilson } from "../statistics.js";
import type { AuditReport, Gain } from "../types.js";

/** What an audit asks, in the order it asks. */
export const PARTS = ["receiver", "sharer", "correct", "mismatched", "zeroed", "noise", "self", "text"] as const;
export type Part = (typeof PARTS)[number];

/** Right or wrong, question by question, in the same order for every part; null where a part was not asked. */
export type Outcomes = Readonly<Record<Exclude<Part, "self" | "text">, readonly boolean[]>> & {
  readonly self: readonly boolean[] | null;
  readonly text: readonly boolean[] | null;
};

/** First minus second, on the same questions. */
export function gain(first: readonly boolean[], second: readonly boolean[]): Gain {
  const paired = pair(first, second);
  return { ...difference(paired), p: mcnemar(paired) };
}

/** "harmful": benefit < 0 with p < 0.05; else "content crosses": contentGain > 0 with p < 0.05; else "no detectable content". */
export function verdict(contentGain: Gain, benefit: Gain): AuditReport["verdict"] {
  if (benefit.value < 0 && benefit.p < 0.05) return "harmful";
  return contentGain.value > 0 && contentGain.p < 0.05 ? "content crosses" : "no detectable content";
}

/** The report of outcomes. */
export function auditReport(outcomes: Outcomes): AuditReport {
  const { receiver, sharer, correct, mismatched, zeroed, noise, self, text } = outcomes;
  const contentGain = gain(correct, mismatched);
  const benefit = gain(correct, receiver);
  return {
    n: correct.length,
    accuracy: {
      receiver: share(receiver),
      sharer: share(sharer),
      correct: share(correct),
      mismatched: share(mismatched),
      zeroed: share(zeroed),
      noise: share(noise),
      text: text && share(text),
      self: self && share(self),
    },
    contentGain,
    benefit,
    verdict: verdict(contentGain, benefit),
  };
}

/** The share of right answers, from 0 to 1. */
export function share(outcomes: readonly boolean[]): number {
  return outcomes.length === 0 ? 0 : outcomes.filter(Boolean).length / outcomes.length;
}

const LABELS: Readonly<Record<Part, string>> = {
  receiver: "receiver alone",
  sharer: "sharer alone",
  text: "text-to-text",
  correct: "right sharer cache",
  mismatched: "another question's cache",
  zeroed: "zeros, gates applied",
  noise: "noise of the same mean and spread",
  self: "receiver as its own sharer",
};

/** A report as a table with 95 % intervals and its verdict in a sentence, for a terminal. */
export function formatAudit(report: AuditReport): string {
  const { n, accuracy, contentGain, benefit } = report;
  const row = (part: Part): readonly string[] => {
    const value = accuracy[part];
    if (value === null) return [];
    const { low, high } = wilson(Math.round(value * n), n);
    return [`  ${LABELS[part].padEnd(36)}${percent(value)}   ${percent(low)} to${percent(high)}`];
  };
  const order = ["receiver", "sharer", "text", "correct", "mismatched", "zeroed", "noise", "self"] as const;
  return [
    `  ${`n = ${n}`.padEnd(36)} correct     95 % interval`,
    ...order.flatMap(row),
    "",
    `  content gain (right − another question's cache)  ${gainText(contentGain)}`,
    `  benefit (right cache − receiver alone)           ${gainText(benefit)}`,
    "",
    `  ${sentence(report)}`,
  ].join("\n");
}

/** The verdict with what it rests on. */
export function sentence({
  n,
  contentGain,
  benefit,
  verdict: said,
}: Pick<AuditReport, "n" | "contentGain" | "benefit" | "verdict">): string {
  switch (said) {
    case "content crosses":
      return `Verdict: content crosses. What the sharer read reaches the answer (gain ${points(contentGain.value)}, p ${pText(contentGain.p)}).`;
    case "harmful":
      return `Verdict: harmful. The receiver does worse with the sharer than alone (${points(benefit.value)}, p ${pText(benefit.p)}).`;
    default:
      return `Verdict: no detectable content. ${n} questions do not show the right cache to do better than another question's (${points(contentGain.value)}, p ${pText(contentGain.p)}).`;
  }
}

/** A gain with its interval and p. */
export function gainText({ value, low, high, p }: Gain): string {
  return `${points(value)} (${points(low)} to ${points(high)}), p ${pText(p)}`;
}

/** A difference of shares in percentage points, with its sign. */
function points(value: number): string {
  const rounded = (value * 100).toFixed(1);
  return `${value > 0 ? "+" : ""}${rounded === "-0.0" ? "0.0" : rounded.replace("-", "−")} points`;
}

/** A p value with its sign of comparison: "= 0.031", "< 0.0001". */
function pText(p: number): string {
  return p < 1e-4 ? "< 0.0001" : `= ${p.toFixed(p < 0.1 ? 4 : 2)}`;
}

/** A share in percent, eight characters wide. */
export function percent(value: number): string {
  return `${(value * 100).toFixed(1)} %`.padStart(8);
}
