import { arcChallenge } from "./arc-challenge.js";
import { cEval } from "./c-eval.js";
import { gpqaDiamond } from "./gpqa-diamond.js";
import { gsm8k } from "./gsm8k.js";
import type { Layout } from "./layout.js";
import { longBench } from "./longbench.js";
import { math500 } from "./math-500.js";
import { mmluPro } from "./mmlu-pro.js";
import { mmluRedux } from "./mmlu-redux.js";
import { openBookQa } from "./openbookqa.js";
import { plainQuestions } from "./questions.js";

/** Every layout that tasks are read from. */
export const layouts: readonly Layout[] = [
  mmluRedux,
  arcChallenge,
  openBookQa,
  cEval,
  gsm8k,
  math500,
  mmluPro,
  gpqaDiamond,
  longBench,
  plainQuestions,
];
