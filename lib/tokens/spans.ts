import { C2CError } from "../errors.js";
import type { Message } from "../types.js";

/** A run of a text or of a token sequence that came from one message. */
export interface MessageSpan {
  readonly message: number;
  readonly start: number;
  readonly end: number;
}

/** Private-use characters around a number: contents that no template changes and no message holds by chance. */
const mark = (index: number) => `\uF8F0c2c${index}\uF8F1`;

/**
 * Where each message's content lies in `text`, left to right (UTF-16 units); white space that the template trims is not part of it,
 * and an empty content has no span. `render` renders other contents with the same options. OPTION_INVALID when a content is not there.
 */
export function findContents(
  text: string,
  messages: readonly Message[],
  render: (messages: readonly Message[]) => string,
): MessageSpan[] {
  return byMarks(text, messages, render) ?? bySearch(text, messages);
}

/** Renders with marks for contents: what lies between the marks is template. Null when the template looks into contents. */
function byMarks(
  text: string,
  messages: readonly Message[],
  render: (messages: readonly Message[]) => string,
): MessageSpan[] | null {
  let rest: string;
  try {
    rest = render(
      messages.map((message, i) => (message.content.trim() === "" ? message : { ...message, content: mark(i) })),
    );
  } catch {
    return null;
  }
  const spans: MessageSpan[] = [];
  let at = 0;
  for (const [i, { content }] of messages.entries()) {
    if (content.trim() === "") continue;
    const place = rest.indexOf(mark(i));
    if (place < 0) return null;
    const before = rest.slice(0, place);
    rest = rest.slice(place + mark(i).length);
    if (!text.startsWith(before, at)) return null;
    at += before.length;
    const next = messages.findIndex((message, j) => j > i && message.content.trim() !== "");
    const after = next < 0 ? rest : rest.slice(0, Math.max(rest.indexOf(mark(next)), 0));
    const found = [content, content.trim(), content.trimStart(), content.trimEnd()].find(
      (form) => text.startsWith(form, at) && text.startsWith(after, at + form.length),
    );
    if (found === undefined) return null;
    spans.push({ message: i, start: at, end: at + found.length });
    at += found.length;
  }
  return text.slice(at) === rest ? spans : null;
}

function bySearch(text: string, messages: readonly Message[]): MessageSpan[] {
  const spans: MessageSpan[] = [];
  let from = 0;
  for (const [i, { content }] of messages.entries()) {
    const trimmed = content.trim();
    if (trimmed === "") continue;
    const forms = [content, trimmed];
    const hit =
      forms.map((form) => ({ form, at: closedHit(text, form, from) })).find(({ at }) => at >= 0) ??
      forms.map((form) => ({ form, at: text.indexOf(form, from) })).find(({ at }) => at >= 0);
    if (!hit) {
      const reason = `the chat template changes the content of message ${i}`;
      throw new C2CError("OPTION_INVALID", { option: "messages", reason }, `messages: ${reason}`);
    }
    from = hit.at + hit.form.length;
    spans.push({ message: i, start: hit.at, end: from });
  }
  return spans;
}

/** First place of `form` that the end of the text or the template's next mark follows; -1 when there is none. */
function closedHit(text: string, form: string, from: number): number {
  for (let at = text.indexOf(form, from); at >= 0; at = text.indexOf(form, at + 1)) {
    const end = at + form.length;
    if (end === text.length || text[end] === "<") return at;
  }
  return -1;
}

const utf8 = new TextEncoder();
const forms = ["NFC", "NFKC", "NFD", "NFKD"] as const;

/** Turns ascending places in `text` (UTF-16 units) into byte offsets in `bytes`, what the tokens spell: `text`, perhaps normalised. */
export function bytePlaces(text: string, bytes: Uint8Array, places: readonly number[]): number[] {
  const plain = utf8.encode(text);
  const size = (start: string) => utf8.encode(start).length;
  if (equal(plain, bytes)) return places.map((place) => size(text.slice(0, place)));
  for (const form of forms) {
    if (equal(utf8.encode(text.normalize(form)), bytes))
      return places.map((place) => size(text.slice(0, place).normalize(form)));
  }
  const map = resync(plain, bytes);
  return places.map((place) => map[size(text.slice(0, place))] ?? bytes.length);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

const reach = 64;
const agreement = 8;

/**
 * For every offset in `a` [a.length + 1] the offset in `b`: equal bytes run side by side; at a difference the nearest place where both
 * agree again is taken.
 */
export function resync(a: Uint8Array, b: Uint8Array): Uint32Array {
  const map = new Uint32Array(a.length + 1);
  const agrees = (i: number, j: number) => {
    const length = Math.min(agreement, a.length - i, b.length - j);
    if (length === 0) return i === a.length && j === b.length;
    for (let k = 0; k < length; k++) if (a[i + k] !== b[j + k]) return false;
    return true;
  };
  const skip = (i: number, j: number): [number, number] => {
    for (let sum = 1; sum <= 2 * reach; sum++) {
      for (let da = 0; da <= sum; da++)
        if (i + da <= a.length && j + sum - da <= b.length && agrees(i + da, j + sum - da)) return [da, sum - da];
    }
    return [1, 1];
  };
  let i = 0;
  let j = 0;
  while (i < a.length) {
    map[i] = Math.min(j, b.length);
    if (j < b.length && a[i] === b[j]) {
      i++;
      j++;
      continue;
    }
    const [da, db] = skip(i, j);
    for (let k = 0; k < da && i + k < a.length; k++) map[i + k] = Math.min(j, b.length);
    i += da;
    j += db;
    if (da === 0 && i < a.length) map[i] = Math.min(j, b.length);
  }
  map[a.length] = b.length;
  return map;
}

/**
 * Message spans in tokens: from the first token that ends after the start to the first that starts at the end or later. `ends[i]` is
 * the byte offset where token i ends; `spans` are in bytes, in order.
 */
export function tokenSpans(spans: readonly MessageSpan[], ends: Uint32Array): MessageSpan[] {
  const result: MessageSpan[] = [];
  let token = 0;
  for (const span of spans) {
    while (token < ends.length && (ends[token] ?? 0) <= span.start) token++;
    const start = token;
    while (token < ends.length && (token === 0 ? 0 : (ends[token - 1] ?? 0)) < span.end) token++;
    if (token > start) result.push({ message: span.message, start, end: token });
  }
  return result;
}
