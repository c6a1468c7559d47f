import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readRows } from "../data/rows.js";
import {
  type Channel,
  connect,
  connectByText,
  type Fuser,
  loadFuser,
  loadModel,
  type Model,
  type Question,
} from "../index.js";
import { native } from "../native.js";
import type { Task } from "../types.js";

/** Answers are one word. */
export const ANSWER_TOKENS = 6;
/** The sharer's message: a biography. */
const MESSAGE_TOKENS = 96;

/** Whose knowledge holds the answer. */
export type Who = "sharer" | "receiver";

/** The embedded pair, loaded and connected, by cache and by text; disposing ends all of it. */
export interface EmbeddedPair extends AsyncDisposable {
  readonly receiver: Model;
  readonly sharer: Model;
  readonly fuser: Fuser;
  readonly channel: Channel;
  /** The sharer writes what it knows about the person (`ask`), the receiver reads it before the question. */
  readonly text: Channel;
  /** The first `limit` held-out questions about people whom one of the two knows. */
  task(who: Who, limit?: number): Task & { readonly questions: readonly Question[] };
}

/** The sharer writes what a question's `ask` asks for; the receiver reads that and the question in one turn. */
export function textChannel(receiver: Model, sharer: Model): Channel {
  return connectByText(receiver, sharer, {
    compose: (messages, said) => messages.map((one) => ({ ...one, content: `${said.trim()} ${one.content}` })),
    maxMessageTokens: MESSAGE_TOKENS,
  });
}

/** Loads the pair that comes with the package. One thread: models of this size lose more to handing work over than two threads win. */
export async function loadPair(): Promise<EmbeddedPair> {
  native().setThreads(1);
  const folder = fileURLToPath(new URL("../../models/pair/", import.meta.url));
  const at = (name: string) => ({ kind: "folder", path: join(folder, name) }) as const;
  const questions: (Question & { readonly who: string })[] = [];
  for await (const { id, who, question, ask, answer } of readRows(join(folder, "questions.jsonl"))) {
    const messages = [{ role: "user", content: String(question) }] as const;
    questions.push({ id: String(id), who: String(who), messages, ask: String(ask), answer: String(answer) });
  }
  const receiver = await loadModel(at("receiver"));
  const sharer = await loadModel(at("sharer"));
  const fuser = await loadFuser(at("fuser"), { receiver, sharer });
  const channel = connect(receiver, [{ sharer, fuser }]);
  const text = textChannel(receiver, sharer);
  return {
    receiver,
    sharer,
    fuser,
    channel,
    text,
    task: (who, limit) => ({
      name: `${who}'s people`,
      questions: questions.filter((question) => question.who === who).slice(0, limit),
      method: "exact",
      maxNewTokens: ANSWER_TOKENS,
    }),
    [Symbol.asyncDispose]: async () => {
      for (const end of [channel, text]) end.dispose();
      for (const handle of [fuser, sharer, receiver]) await handle.dispose();
    },
  };
}
