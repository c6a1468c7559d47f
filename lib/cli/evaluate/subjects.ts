import { existsSync } from "node:fs";
import { resolve } from "node:path";
import {
  type Channel,
  connect,
  connectByText,
  type Fuser,
  type Link,
  loadFuser,
  loadModel,
  type Model,
} from "../../index.js";
import type { TextOptions } from "../../types.js";
import { parseSource } from "../sources.js";
import { type EvalConfig, type SubjectName, subjectsOf } from "./config.js";

/** What an evaluation asks, by name; disposing ends all of it. */
export interface LoadedSubjects extends AsyncDisposable {
  readonly subjects: ReadonlyMap<SubjectName, Model | Channel>;
}

/** Loads the models and fusers of a configuration whose paths are relative to `folder`. Fails like `loadModel` and `loadFuser`. */
export async function loadSubjects(config: EvalConfig, folder: string): Promise<LoadedSubjects> {
  const loaded: (Model | Fuser)[] = [];
  const dispose = async (): Promise<void> => {
    for (const handle of loaded.reverse()) await handle.dispose();
  };
  const source = (text: string) => {
    const path = resolve(folder, text);
    return parseSource(existsSync(path) ? path : text);
  };
  const keep = async <T extends Model | Fuser>(handle: Promise<T>): Promise<T> => {
    loaded.push(await handle);
    return await handle;
  };
  const wanted = subjectsOf(config);
  const subjects = new Map<SubjectName, Model | Channel>();
  try {
    const receiver = await keep(loadModel(source(config.receiver)));
    const links: Link[] = [];
    for (const { sharer: from, fuser, align, span } of config.links) {
      const sharer = await keep(loadModel(source(from)));
      const handle = await keep(loadFuser(source(fuser), { receiver, sharer }));
      links.push({ sharer, fuser: handle, ...(align && { align }), ...(span && { span }) });
    }
    for (const name of wanted) {
      if (name === "receiver") subjects.set(name, receiver);
      if (name === "single") subjects.set(name, await keep(loadModel(source(config.single ?? ""))));
      if (name === "c2c") subjects.set(name, connect(receiver, links));
      const [first] = links;
      if (name === "sharer" && first) subjects.set(name, first.sharer);
      if (name === "text" && first) subjects.set(name, connectByText(receiver, first.sharer, textOptions(config)));
      if (name === "identical") {
        const fuser = await keep(loadFuser(source(config.identical ?? ""), { receiver, sharer: receiver }));
        subjects.set(name, connect(receiver, [{ sharer: receiver, fuser }]));
      }
    }
    return { subjects, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function textOptions({ text }: EvalConfig): TextOptions {
  const { maxMessageTokens } = text;
  if (text.style === "background") return { maxMessageTokens };
  const before: TextOptions["compose"] = (messages, said) =>
    messages.map((one, i) => (i === messages.length - 1 ? { ...one, content: `${said.trim()} ${one.content}` } : one));
  return { maxMessageTokens, compose: before };
}
