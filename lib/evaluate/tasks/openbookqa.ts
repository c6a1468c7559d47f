import { ai2 } from "./ai2.js";

/** OpenBookQA (allenai/openbookqa, "main"): id, question_stem, choices {text, label}, answerKey. */
export const openBookQa = ai2("openbookqa", "question_stem");
