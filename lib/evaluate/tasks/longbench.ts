import { createHash } from "node:crypto";
import { judgeWords } from "../judge.js";
import { asks, type Layout } from "./layout.js";

/** What is asked where no template of the benchmark is given. */
const TEMPLATE = "Read the text and answer the question in a few words.\n\n{context}\n\nQuestion: {input}\nAnswer:";

/**
 * LongBench (THUDM/LongBench): input, context, answers, dataset, language, _id. Its prompt templates lie in a file beside the data
 * (dataset2prompt.json): give it as `templates`. As in the reference only ids whose SHA-256 is 1 modulo 4 are asked (the others are
 * its training data). An answer is right when an accepted one is in it, word for word; `score` is the F1 of words that the benchmark
 * uses for question answering (its summaries and code have other measures, which are not computed here).
 */
export const longBench: Layout = {
  name: "longbench",
  method: "generate",
  maxNewTokens: 128,
  judge: judgeWords,
  question: (fields, place) => {
    const id = fields.id("_id");
    if ((createHash("sha256").update(id).digest().at(-1) ?? 0) % 4 !== 1) return null;
    const [answer = "", ...accept] = fields.list("answers");
    const dataset = fields.optional("dataset") ?? place.subject;
    const template = place.templates[dataset.replace(/_e$/, "")] ?? TEMPLATE;
    const filled = template.replace(/\{(context|input)\}/g, (_, name: string) => fields.text(name));
    return { id, group: dataset, messages: asks(filled), answer, accept };
  },
};
