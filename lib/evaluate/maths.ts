import type { Judgement, Question } from "../types.js";

/**
 * Judges a mathematical answer: the last \boxed{…}, else what follows the last "Answer:", else the last number. It is right when it
 * is the same text as the answer after LaTeX spelling is evened out, or the same number. (Narrower than a computer algebra system:
 * 2(x+1) and 2x+2 differ here.)
 */
export function judgeMaths(text: string, question: Question): Judgement {
  const predicted = finalAnswer(text);
  const right = [question.answer, ...(question.accept ?? [])];
  return { predicted, correct: predicted !== null && right.some((answer) => sameMaths(predicted, answer)) };
}

/** What a text gives as its final answer, or null. */
export function finalAnswer(text: string): string | null {
  const boxed = lastBoxed(text);
  if (boxed !== null) return boxed.trim();
  const labelled = [...text.matchAll(/answer\s*:\s*([^\n]+)/gi)].at(-1)?.[1]?.trim();
  if (labelled) return labelled;
  return [...text.matchAll(/-?\d[\d,]*(?:\.\d+)?(?:\/\d+)?/g)].at(-1)?.[0] ?? null;
}

/** Whether two answers are the same text or the same number once spelling is evened out. */
export function sameMaths(one: string, other: string): boolean {
  const left = even(one);
  const right = even(other);
  if (left === right) return true;
  const a = number(left);
  const b = number(right);
  return a !== null && b !== null && Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a), Math.abs(b));
}

/** The content of the last \boxed{…}, with its own braces; null where it is missing or never closed. */
function lastBoxed(text: string): string | null {
  const start = text.lastIndexOf("\\boxed{");
  if (start < 0) return null;
  let depth = 0;
  for (let i = start + 6; i < text.length; i++) {
    if (text[i] === "{") depth += 1;
    else if (text[i] === "}") depth -= 1;
    if (depth === 0) return text.slice(start + 7, i);
  }
  return null;
}

function even(text: string): string {
  return (
    text
      .trim()
      .replace(/^\$+|\$+$/g, "")
      .replace(/^\\\((.*)\\\)$|^\\\[(.*)\\\]$/s, "$1$2")
      .replace(/\\(?:left|right|displaystyle|,|!|;|:|quad)/g, "")
      .replace(/\\[dt]frac/g, "\\frac")
      .replace(/\\frac(\d)(\d)/g, "\\frac{$1}{$2}")
      .replace(/\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}/g, "$1")
      .replace(/\\sqrt(\d)/g, "\\sqrt{$1}")
      .replace(/\^\{?\\circ\}?|\\%|%|\\\$|\$/g, "")
      // A single letter before "=" only names what follows.
      .replace(/^[a-z]\s*=\s*/i, "")
      .replace(/(\d),(?=\d{3}(?:\D|$))/g, "$1")
      .replace(/\s+/g, "")
      .replace(/\.$/, "")
      .toLowerCase()
  );
}

/** A decimal, a/b or \frac{a}{b} as a number, else null. */
function number(text: string): number | null {
  const fraction = /^(-?)\\frac\{(-?[\d.]+)\}\{(-?[\d.]+)\}$/.exec(text) ?? /^(-?)([\d.]+)\/([\d.]+)$/.exec(text);
  if (fraction) {
    const [, sign, above, below] = fraction;
    const value = Number(above) / Number(below);
    return Number.isFinite(value) ? (sign ? -value : value) : null;
  }
  return /^[+-]?(?:\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : null;
}
