// Families that no recorded case covers, against ones that are covered: without a window Mistral's blocks are Llama's.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadModel } from "../dist/index.js";
import { readSafetensors, writeSafetensors } from "../dist/weights/safetensors.js";

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

/** float32 bits to float16 bits, cut (not rounded); what is too small becomes zero. */
function half(bits) {
  const exponent = ((bits >>> 23) & 0xff) - 112;
  const sign = (bits >>> 16) & 0x8000;
  return exponent <= 0 ? sign : sign | (exponent << 10) | ((bits >>> 13) & 0x3ff);
}

test("float16 files become bfloat16, or float32 when asked", async () => {
  const folder = await mkdtemp(join(tmpdir(), "c2c-half-"));
  try {
    await cp(golden, folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const { tensors } = await readSafetensors(path);
    const file = await readFile(path);
    const halves = tensors.map(({ name, shape, begin, end }) => {
      const from = new Uint32Array(file.buffer.slice(file.byteOffset + begin, file.byteOffset + end));
      return { name, shape, dtype: "F16", data: new Uint8Array(Uint16Array.from(from, half).buffer) };
    });
    await writeSafetensors(path, halves);
    const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, dtype: "float16" }));
    const run = async (path, options) => {
      const model = await loadModel({ kind: "folder", path }, options);
      const out = await model.logits(model.cache(), model.tokens(ids));
      const { dtype } = model;
      await model.dispose();
      return { dtype, out };
    };
    const exact = await run(golden);
    const wide = await run(folder, { dtype: "float32" });
    const narrow = await run(folder);
    assert.equal([wide.dtype, narrow.dtype], ["float32", "bfloat16"]);
    const scale = exact.out.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    assert.ok(distance(exact.out, wide.out) < 0.01 * scale, `${distance(exact.out, wide.out)} of ${scale}`);
    assert.ok(distance(exact.out, narrow.out) < 0.1 * scale, `${distance(exact.out, narrow.out)} of ${scale}`);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test.run();
