import type { Family } from "./family.js";
import { gemma3 } from "./gemma3.js";
import { llama } from "./llama.js";
import { mistral } from "./mistral.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";

/** Every decoder family that can be loaded. */
export const families: readonly Family[] = [qwen3, qwen2, llama, mistral, gemma3];
