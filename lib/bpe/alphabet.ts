/**
 * GPT-2's byte alphabet: each byte has one character. Printable Latin-1 bytes are themselves, the others are counted up from U+0100,
 * so that no token's name holds a space or a control character.
 */
const hidden = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !printable(byte));
const names: readonly string[] = Array.from({ length: 256 }, (_, byte) =>
  String.fromCharCode(printable(byte) ? byte : 256 + hidden.indexOf(byte)),
);

function printable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/** All 256 names, in the order of their code points: the order in which a vocabulary lists them. */
export const alphabet: readonly string[] = [...names].sort((a, b) => a.charCodeAt(0) - b.charCodeAt(0));

const utf8 = new TextEncoder();

/** The names of a text's UTF-8 bytes. */
export function byteNames(text: string): string[] {
  return Array.from(utf8.encode(text), (byte) => names[byte] ?? "");
}
