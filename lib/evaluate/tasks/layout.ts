import { type Row, rowInvalid } from "../../data/rows.js";
import type { Message, Question, Task } from "../../types.js";
import { letters } from "../choices.js";

/** "direct": answer at once; "reasoning": think step by step first; "plain": the question and its choices, no instructions. */
export type PromptStyle = "direct" | "reasoning" | "plain";
export const promptStyles = ["direct", "reasoning", "plain"] as const satisfies readonly PromptStyle[];

/** Where a row comes from and how it is to be asked. */
export interface Place {
  readonly file: string;
  /** From 0, in its file. */
  readonly index: number;
  /** The subject that the file's path names, e.g. "anatomy" for anatomy/test-00000-of-00001.parquet. */
  readonly subject: string;
  readonly style: PromptStyle;
  /** Prompt templates by data set, where a layout has them outside its rows (LongBench). */
  readonly templates: Readonly<Record<string, string>>;
}

/** A published layout of a benchmark: how its rows become questions. One layout is one file. */
export interface Layout {
  readonly name: string;
  readonly method: Task["method"];
  readonly maxNewTokens: number;
  /** null: the row is not asked. FILE_INVALID where a field is not what the layout says. */
  question(fields: Fields, place: Place): Question | null;
  judge?: NonNullable<Task["judge"]>;
}

/** The fields of a row, each checked when it is read: FILE_INVALID with the row's number. */
export class Fields {
  readonly row: Row;
  readonly #place: Place;

  constructor(row: Row, place: Place) {
    this.row = row;
    this.#place = place;
  }

  problem(reason: string): Error {
    return rowInvalid(this.#place.file, `row ${this.#place.index}: ${reason}`);
  }

  text(name: string): string {
    const value = this.row[name];
    if (typeof value !== "string") throw this.problem(`${name} must be a string`);
    return value;
  }

  /** A string that is not empty once trimmed, else null. */
  optional(name: string): string | null {
    const value = this.row[name];
    return typeof value === "string" && value.trim() !== "" ? value : null;
  }

  index(name: string, count: number): number {
    const value = this.row[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value >= count) {
      throw this.problem(`${name} must be an index of ${count} choices, is ${JSON.stringify(value)}`);
    }
    return value;
  }

  /** A string or a whole number, as text. */
  id(name: string): string {
    const value = this.row[name];
    if (typeof value !== "string" && typeof value !== "number")
      throw this.problem(`${name} must be a string or a number`);
    return String(value);
  }

  list(name: string): readonly string[] {
    return this.#strings(this.row[name], name);
  }

  /** {text: […], label: […]} or [{text, label}, …], as the AI2 sets have it. */
  labelled(name: string): { readonly texts: readonly string[]; readonly labels: readonly string[] } {
    const value = this.row[name];
    const part = (key: "text" | "label"): unknown =>
      Array.isArray(value) ? value.map((one: unknown) => field(one, key)) : field(value, key);
    const texts = this.#strings(part("text"), `${name}.text`);
    const labels = this.#strings(part("label"), `${name}.label`);
    if (texts.length !== labels.length)
      throw this.problem(`${name}: ${texts.length} texts have ${labels.length} labels`);
    return { texts, labels };
  }

  #strings(value: unknown, name: string): readonly string[] {
    if (!Array.isArray(value) || value.length === 0 || !value.every((one): one is string => typeof one === "string")) {
      throw this.problem(`${name} must be a list of strings`);
    }
    return value;
  }
}

function field(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
}

/** One user message. */
export function asks(content: string): readonly Message[] {
  return [{ role: "user", content }];
}

/**
 * A question with lettered choices in the reference's words. `answer` is the index of the right one. Text-to-text asks the sharer
 * for background to the question without its choices. FILE_INVALID for more than ten choices.
 */
export function multipleChoice(
  fields: Fields,
  { style }: Pick<Place, "style">,
  {
    question,
    choices,
    answer,
    ...rest
  }: Pick<Question, "id" | "group"> & {
    readonly question: string;
    readonly choices: readonly string[];
    readonly answer: number;
  },
): Question {
  if (choices.length > 10) throw fields.problem(`${choices.length} choices, at most 10 have letters`);
  const names = letters(choices.length);
  return {
    ...rest,
    messages: asks(choicePrompt(question, choices, style)),
    answer: names[answer] ?? "",
    choices,
    ask: `Briefly describe the most useful background to solve the problem:\n\n${question}`,
  };
}

/** The reference's prompt. Up to four choices its instructions say "A/B/C/D", as there; beyond, all the letters that there are. */
function choicePrompt(question: string, choices: readonly string[], style: PromptStyle): string {
  const names = letters(choices.length);
  const listed = choices.map((choice, i) => `${names[i]}. ${choice}\n`).join("");
  if (style === "plain") return `${question}\n\nChoices:\n${listed}`;
  const head = `Accurately answer the following question:\n\n${question}\n\nChoices:\n${listed}\n\nInstructions:\n- Carefully read the question and all options.\n`;
  if (style === "reasoning") {
    return `${head}- Let's think step by step and explain your reasoning briefly.\n- Then give the final answer starting with The correct answer is`;
  }
  const shown = letters(Math.max(4, choices.length)).join("/");
  return `${head}- Select the single most correct answer.\n- Respond ONLY in the following format: "The correct answer is ${shown}".\n- Do not include any explanations, additional text, or punctuation besides the answer.\n\nThe correct answer is`;
}

/** The reference's prompt for mathematics. */
export function mathsPrompt(problem: string): string {
  return `Solve the following math problem step by step. The last line of your response should be of the form Answer: $ANSWER (without quotes) where $ANSWER is the answer to the problem.\n\n${problem}\n\nPlease think step by step and explain your reasoning. Remember to put your answer on its own line after "Answer:", and you do not need to use a \\boxed command.`;
}
