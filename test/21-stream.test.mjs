import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StopMatcher, Tokenizer } from "../dist/tokens/index.js";

const models = join(dirname(fileURLToPath(import.meta.url)), "goldens", "models");
// U+FFFD is a character like any other, but here it is how half a character would show.
const text = fc.string({ unit: "grapheme", maxLength: 40 }).filter((input) => !input.includes("\uFFFD"));

for (const name of ["qwen2", "llama", "gemma3"]) {
  test(`${name}: valid text never shows half a character`, async () => {
    const tokenizer = await Tokenizer.load(join(models, name));
    await fc.assert(
      fc.asyncProperty(text, async (input) => {
        const ids = await tokenizer.encode(input);
        const stream = tokenizer.stream();
        const pieces = Array.from(ids, (id) => stream.push(id));
        pieces.push(stream.end());
        assert.is(pieces.join(""), tokenizer.decode(ids));
        assert.not.ok(pieces.some((piece) => piece.includes("\uFFFD") || !piece.isWellFormed()));
      }),
      { numRuns: 200 },
    );
  });

  test(`${name}: any ids stream to what they decode to`, async () => {
    const tokenizer = await Tokenizer.load(join(models, name));
    const ids = fc.array(fc.nat(tokenizer.size + 5), { maxLength: 30 });
    fc.assert(
      fc.property(ids, fc.boolean(), (input, skipSpecial) => {
        const stream = tokenizer.stream({ skipSpecial });
        const streamed = input.map((id) => stream.push(id)).join("") + stream.end();
        assert.is(streamed, tokenizer.decode(input, { skipSpecial }));
        const bytes = Buffer.concat(
          input.filter((id) => !(skipSpecial && tokenizer.isSpecial(id))).map((id) => tokenizer.bytes(id)),
        );
        assert.is(streamed, new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
      }),
    );
  });
}

/** The stop string that ends first, of those the longest. */
function firstStop(input, stops) {
  for (let end = 1; end <= input.length; end++) {
    const found = stops.filter((stop) => input.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (found !== undefined) return { text: input.slice(0, end - found.length), match: found };
  }
  return { text: input, match: null };
}

test("stop strings are found across borders, however the text is cut", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "c", "🚀"), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c", "🚀"), minLength: 1, maxLength: 4 }), {
    maxLength: 3,
  });
  fc.assert(
    fc.property(letters, stops, fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }), (input, list, sizes) => {
      const characters = [...input];
      const matcher = new StopMatcher(list);
      let shown = "";
      let match = null;
      for (let at = 0, i = 0; at < characters.length && match === null; i++) {
        const size = sizes[i % sizes.length];
        const step = matcher.push(characters.slice(at, at + size).join(""));
        shown += step.text;
        match = step.match;
        at += size;
      }
      shown += matcher.end();
      assert.equal({ text: shown, match }, firstStop(input, list));
    }),
    { numRuns: 1000 },
  );
});

test("only what may begin a stop string is held back", () => {
  const matcher = new StopMatcher(["\n\nUser:"]);
  assert.equal(matcher.push("Hello\n"), { text: "Hello", match: null });
  assert.equal(matcher.push("\nUs"), { text: "", match: null });
  assert.equal(matcher.push("ually"), { text: "\n\nUsually", match: null });
  assert.equal(matcher.push("\n\nUser: no"), { text: "", match: "\n\nUser:" });
  assert.equal(matcher.push("more"), { text: "", match: "\n\nUser:" });
  assert.is(matcher.end(), "");
});

test("an empty stop string is refused", () => {
  assert.throws(
    () => new StopMatcher(["a", ""]),
    (error) => error.code === "OPTION_INVALID",
  );
});

test.run();
