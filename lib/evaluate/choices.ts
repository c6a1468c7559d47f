import { invalid } from "../options.js";

/** Labels before an answer, in the order they are tried; what follows on the line is searched. */
const LABELS: readonly RegExp[] = [
  "answer:",
  "your answer:",
  "the answer is",
  "correct answer is",
  "correct answer is:",
  "correct answer:",
  "jibu lako:",
  "jibu:",
  "jibu sahihi:",
  "response:",
  "choice:",
  "option:",
].map((label) => new RegExp(`${label}\\s*([^\\n]*)`, "i"));
const BEFORE = "(?<![\\p{L}\\p{N}_])";
const AFTER = "(?![\\p{L}\\p{N}_])";
const MATHS = ["+", "-", "*", "/", "=", "^", "mod", "sqrt", "sin", "cos", "tan"];
const ANSWER_WORDS = ["jibu", "answer", "choice", "option", "response", "correct", "sahihi"];
/** Most choices of a question: A to J. */
export const MOST_CHOICES = 10;

/** The letters of `count` choices. OPTION_INVALID outside 1 to 10. */
export function letters(count: number): readonly string[] {
  if (count < 1 || count > MOST_CHOICES) throw invalid("choices", `must be 1 to ${MOST_CHOICES}, are ${count}`);
  return [..."ABCDEFGHIJ".slice(0, count)];
}

/**
 * The choice A to D that a model's text names, or null. Labelled answers come first (the first capital A to D on the label's line),
 * then letters at the end or before punctuation, then letters that stand alone (the last one counts; none in what looks like
 * mathematics without a word such as "answer"), then the last capital A to D anywhere.
 */
export function extractAnswer(text: string): string | null {
  return extractChoice(text, 4);
}

/** `extractAnswer` for `count` choices: up to four are searched as A to D, more as A to their last letter, J at most. */
export function extractChoice(text: string, count: number): string | null {
  const content = text.trim();
  const last = letters(Math.max(4, count)).at(-1) ?? "D";
  const capital = new RegExp(`[A-${last}]`);
  for (const label of LABELS) {
    const letter = capital.exec(label.exec(content)?.[1] ?? "");
    if (letter) return letter[0];
  }
  const lower = content.toLowerCase();
  const mathematics =
    MATHS.some((sign) => content.includes(sign)) && !ANSWER_WORDS.some((word) => lower.includes(word));
  const searched = places(last);
  for (const place of searched) {
    const letter = [...content.matchAll(place)].at(-1)?.[1];
    if (letter) {
      if (!mathematics) return letter.toUpperCase();
      if (place === searched.at(-1)) return null;
    }
  }
  return [...content].findLast((character) => capital.test(character)) ?? null;
}

/** Letters that look like an answer: at the end, before punctuation, alone at the end, alone anywhere. */
function places(last: string): readonly RegExp[] {
  return [
    new RegExp(`${BEFORE}([A-${last}])\\s*[.,!?:)]?\\s*$`, "giu"),
    new RegExp(`${BEFORE}([A-${last}])\\s*[.,!?:)]\\s`, "giu"),
    new RegExp(`(?:^|\\s)([A-${last}])\\s*$`, "gi"),
    new RegExp(`${BEFORE}([A-${last}])${AFTER}`, "giu"),
  ];
}
