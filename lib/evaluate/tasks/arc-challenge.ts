import { ai2 } from "./ai2.js";

/** ARC-Challenge (allenai/ai2_arc): id, question, choices {text, label}, answerKey. */
export const arcChallenge = ai2("arc-challenge", "question");
