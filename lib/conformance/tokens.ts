import { join } from "node:path";
import type { AlignStrategy, Message } from "../index.js";
import { alignSequence } from "../testing.js";
import { type CaseResult, type Check, readJson, runCase } from "./golden.js";
import type { Loaded } from "./models.js";

interface TokenizerGolden {
  readonly single: readonly string[];
  readonly texts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly decoded: string;
    readonly decoded_keep: string;
  }[];
  readonly templates: readonly {
    readonly messages: readonly Message[];
    readonly add_generation_prompt: boolean;
    readonly enable_thinking: boolean;
    readonly text?: string;
  }[];
}

interface ChatGolden {
  readonly slm_ids_padded: readonly number[];
  readonly llm_ids_padded: readonly number[];
  readonly message_mask: readonly boolean[];
  readonly slm_padding_mask: readonly boolean[];
  readonly llm_padding_mask: readonly boolean[];
}

type AlignGolden = {
  readonly sharer: string;
  readonly strategy: AlignStrategy;
} & (
  | {
      readonly text: string;
      readonly sequence: {
        readonly slm_token_ids: readonly number[];
        readonly aligned_llm_token_ids: readonly number[];
      };
    }
  | {
      readonly messages: readonly Message[];
      readonly add_generation_prompt: boolean;
      readonly remove_last_surfix: boolean;
      readonly result: ChatGolden;
    }
);

/** Runs tokenizers.json: ids, decoded texts, tokens one by one, rendered chat templates. */
export async function runTokenizers(
  folder: string,
  loaded: Loaded,
  report: (result: CaseResult) => void,
): Promise<void> {
  const file = "tokenizers.json";
  const goldens = await readJson<Readonly<Record<string, TokenizerGolden>>>(join(folder, file));
  for (const [name, { single, texts, templates }] of Object.entries(goldens)) {
    report(
      await runCase(file, `${name} single tokens`, async (check) => {
        const model = await loaded.model(name);
        check.same(
          "decoded",
          single.map((_, id) => model.decodeTokens([id])),
          single,
        );
      }),
    );
    for (const [i, { text, ids, decoded, decoded_keep }] of texts.entries()) {
      report(
        await runCase(file, `${name} text ${i}`, async (check) => {
          const model = await loaded.model(name);
          check.same("ids", await model.encodeText(text), ids);
          check.same("decoded", [model.decodeTokens(ids, { skipSpecial: true })], [decoded]);
          check.same("decoded with special tokens", [model.decodeTokens(ids)], [decoded_keep]);
        }),
      );
    }
    for (const [i, { messages, add_generation_prompt, enable_thinking, text }] of templates.entries()) {
      if (text === undefined) continue;
      report(
        await runCase(file, `${name} template ${i}`, async (check) => {
          const model = await loaded.model(name);
          const options = {
            generationPrompt: add_generation_prompt,
            thinking: enable_thinking,
          };
          check.same("text", [(await model.encode(messages, options)).text], [text]);
        }),
      );
    }
  }
}

/** Runs align.json: plain sequences and chats. */
export async function runAlign(folder: string, loaded: Loaded, report: (result: CaseResult) => void): Promise<void> {
  for (const [i, golden] of (await readJson<readonly AlignGolden[]>(join(folder, "align.json"))).entries()) {
    const kind = "text" in golden ? "sequence" : "chat";
    report(
      await runCase("align.json", `${i} ${kind} ${golden.sharer} ${golden.strategy}`, async (check) => {
        const receiver = await loaded.model("receiver");
        const sharer = await loaded.model(golden.sharer);
        if ("text" in golden) {
          const tokens = await receiver.encodeText(golden.text);
          check.same("receiver", tokens, golden.sequence.slm_token_ids);
          const aligned = await alignSequence(receiver, sharer, tokens, golden.strategy);
          check.same("sharer", aligned, golden.sequence.aligned_llm_token_ids);
          return;
        }
        const { messages, add_generation_prompt: generationPrompt, remove_last_surfix: continueLast } = golden;
        const fuser = await loaded.fuser(golden.sharer);
        const prompt = await receiver.encode(messages, {
          thinking: false,
          generationPrompt,
          continueLast,
        });
        compareChat(await fuser.align(prompt, { strategy: golden.strategy }), golden.result, check);
      }),
    );
  }
}

function compareChat(
  actual: Awaited<ReturnType<import("../index.js").Fuser["align"]>>,
  golden: ChatGolden,
  check: Check,
): void {
  const receiver = rowsWithout(golden.slm_padding_mask);
  const sharer = rowsWithout(golden.llm_padding_mask);
  check.same(
    "receiver tokens",
    actual.receiver.tokens,
    receiver.map((row) => golden.slm_ids_padded[row]),
  );
  check.same("receiver positions", actual.receiver.positions, receiver);
  check.same(
    "sharer tokens",
    actual.sharer.tokens,
    sharer.map((row) => golden.llm_ids_padded[row]),
  );
  check.same("sharer positions", actual.sharer.positions, sharer);
  const pairs = actual.fused.flatMap(({ receiver: left, sharer: right }) =>
    Array.from({ length: left.end - left.start }, (_, i) => [left.start + i, right.start + i]),
  );
  const expected = golden.message_mask
    .flatMap((message, position) => (message ? [[receiver.indexOf(position), sharer.indexOf(position)]] : []))
    .filter(([row]) => row !== receiver.length - 1);
  check.same("fused rows", pairs, expected);
}

function rowsWithout(padding: readonly boolean[]): number[] {
  return padding.flatMap((pad, i) => (pad ? [] : [i]));
}
