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
/** Letters that look like an answer: at the end, or before punctuation. */
const PLACES: readonly RegExp[] = [
  new RegExp(`${BEFORE}([A-D])\\s*[.,!?:)]?\\s*$`, "giu"),
  new RegExp(`${BEFORE}([A-D])\\s*[.,!?:)]\\s`, "giu"),
  /(?:^|\s)([A-D])\s*$/gi,
  new RegExp(`${BEFORE}([A-D])${AFTER}`, "giu"),
];
const MATHS = ["+", "-", "*", "/", "=", "^", "mod", "sqrt", "sin", "cos", "tan"];
const ANSWER_WORDS = ["jibu", "answer", "choice", "option", "response", "correct", "sahihi"];

/**
 * The choice A to D that a model's text names, or null. Labelled answers come first (the first capital A to D on the label's line),
 * then letters at the end or before punctuation, then letters that stand alone (the last one counts; none in what looks like
 * mathematics without a word such as "answer"), then the last capital A to D anywhere.
 */
export function extractAnswer(text: string): string | null {
  const content = text.trim();
  for (const label of LABELS) {
    const letter = /[A-D]/.exec(label.exec(content)?.[1] ?? "");
    if (letter) return letter[0];
  }
  const lower = content.toLowerCase();
  const mathematics =
    MATHS.some((sign) => content.includes(sign)) && !ANSWER_WORDS.some((word) => lower.includes(word));
  for (const place of PLACES) {
    const letter = [...content.matchAll(place)].at(-1)?.[1];
    if (letter) {
      if (!mathematics) return letter.toUpperCase();
      if (place === PLACES.at(-1)) return null;
    }
  }
  return [...content].findLast((character) => "ABCD".includes(character)) ?? null;
}
