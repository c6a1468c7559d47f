import { join } from "node:path";
import { type Fuser, loadFuser, loadModel, type Model } from "../index.js";

/** Loads the models and fusers of a goldens folder when first asked for, in float32, and keeps them until disposed. */
export class Loaded implements AsyncDisposable {
  readonly #folder: string;
  readonly #models = new Map<string, Promise<Model>>();
  readonly #fusers = new Map<string, Promise<Fuser>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `name` is a folder under models/. */
  model(name: string): Promise<Model> {
    const path = join(this.#folder, "models", name);
    return once(this.#models, name, () => loadModel({ kind: "folder", path }, { dtype: "float32" }));
  }

  /** `name` is a folder under fusers/; its sharer model has the same name but for a dtype suffix. */
  async fuser(name: string): Promise<Fuser> {
    const pair = {
      receiver: await this.model("receiver"),
      sharer: await this.model(sharerOf(name)),
    };
    const path = join(this.#folder, "fusers", name);
    return once(this.#fusers, name, () => loadFuser({ kind: "folder", path }, pair, { dtype: "float32" }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const fusers of await Promise.allSettled(this.#fusers.values())) {
      if (fusers.status === "fulfilled") await fusers.value.dispose();
    }
    for (const models of await Promise.allSettled(this.#models.values())) {
      if (models.status === "fulfilled") await models.value.dispose();
    }
  }
}

/** The sharer model that a fuser's name speaks of: "qwen2_bf16" is a bf16 fuser of the model "qwen2". */
export function sharerOf(fuser: string): string {
  return fuser.replace(/_(bf16|fp32)$/, "");
}

function once<T>(map: Map<string, Promise<T>>, name: string, load: () => Promise<T>): Promise<T> {
  const known = map.get(name);
  if (known) return known;
  const loading = load();
  map.set(name, loading);
  return loading;
}
