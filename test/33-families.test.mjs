// Families that no recorded case covers, against ones that are covered: without a window Mistral's blocks are Llama's.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadModel } from "../dist/index.js";

const golden = fileURLToPath(new URL("./goldens/models/llama", import.meta.url));
const ids = Array.from({ length: 24 }, (_, i) => (i * 37 + 5) % 600);

/** Logits of `ids` by the recorded Llama weights under a changed config.json. */
async function logits(changes) {
  const folder = await mkdtemp(join(tmpdir(), "c2c-family-"));
  try {
    await cp(golden, folder, { recursive: true });
    const path = join(folder, "config.json");
    const config = { ...JSON.parse(await readFile(path, "utf8")), rope_scaling: null, ...changes };
    await writeFile(path, JSON.stringify(config));
    const model = await loadModel({ kind: "folder", path: folder });
    const out = await model.logits(model.cache(), model.tokens(ids));
    const { family, vocab } = model.shape;
    await model.dispose();
    return { family, vocab, out };
  } finally {
    await rm(folder, { recursive: true });
  }
}

const mistral = { model_type: "mistral", architectures: ["MistralForCausalLM"] };
const distance = (a, b) => a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - b[i])), 0);

test("Mistral without a window equals Llama without rope scaling", async () => {
  const llama = await logits({});
  const other = await logits({ ...mistral, sliding_window: null });
  assert.is(other.family, "mistral");
  assert.is(distance(llama.out, other.out), 0);
});

test("Mistral's window hides what lies further back, and nothing else", async () => {
  const open = await logits({ ...mistral, sliding_window: null });
  const wide = await logits({ ...mistral, sliding_window: ids.length });
  const narrow = await logits({ ...mistral, sliding_window: 8 });
  assert.ok(distance(open.out, wide.out) < 1e-5);
  const rows = (from, to) => [
    open.out.slice(from * open.vocab, to * open.vocab),
    narrow.out.slice(from * open.vocab, to * open.vocab),
  ];
  assert.ok(distance(...rows(0, 8)) < 1e-5, "the first rows see everything");
  assert.ok(distance(...rows(9, ids.length)) > 1e-3, "later rows do not");
});

test.run();
