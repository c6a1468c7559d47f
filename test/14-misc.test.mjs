import { readFile } from "node:fs/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { extractAnswer } from "../dist/evaluate/choices.js";
import { lastAligned, nearest } from "../dist/fuser/layer-map.js";
import { kvSections } from "../dist/testing-support/sections.js";
import { temperature } from "../dist/testing-support/temperature.js";

const misc = JSON.parse(await readFile(new URL("goldens/misc.json", import.meta.url), "utf8"));
const test = suite("misc");

test("layer maps", () => {
  for (const { target, source, k, last_aligned, k_nearest } of misc.mappings) {
    assert.equal([...lastAligned(target, source, k).entries()], last_aligned, `last-aligned ${target} ${source} ${k}`);
    assert.equal([...nearest(target, source, k).entries()], k_nearest, `nearest ${target} ${source} ${k}`);
  }
  assert.equal([nearest(1, 3, 1), lastAligned(1, 1, 3)], [[[0]], [[0]]]);
});

test("sections", () => {
  for (const { instruction, response, proportion, order, sections } of misc.kv_index) {
    assert.equal(kvSections(instruction, response, proportion, order), sections);
  }
});

test("temperature", () => {
  for (const { step, anneal, T0, T1, temp } of misc.temperature) {
    assert.ok(Math.abs(temperature(step, anneal, T0, T1) - temp) <= 1e-7 * temp, `${step}`);
  }
});

test("answers", () => {
  for (const { text, answer } of misc.answers) assert.is(extractAnswer(text), answer, JSON.stringify(text));
  assert.is(extractAnswer("Answer:\n  C"), "C");
  assert.is(extractAnswer("I choose é B"), "B");
});

test.run();
