import { planOf } from "../evaluate/subject.js";
import type { Channel, Question } from "../types.js";

/**
 * For each question the next one in order, cyclic, whose answer differs and whose sharer rows are as many, for every sharer. A
 * question without such a partner is not in the map.
 */
export async function partners(
  channel: Channel,
  questions: readonly Question[],
): Promise<ReadonlyMap<Question, Question>> {
  const alike = new Map<string, number[]>();
  for (const [i, question] of questions.entries()) {
    const { sharers } = await planOf(channel, question.messages, null);
    const rows = sharers.map(({ ids }) => ids.length).join(" ");
    const list = alike.get(rows) ?? [];
    list.push(i);
    alike.set(rows, list);
  }
  const found = new Map<Question, Question>();
  for (const list of alike.values()) {
    for (const [at, index] of list.entries()) {
      const question = questions[index];
      // The list ascends, so going on from here and around its end is the questions' own cyclic order.
      let other: Question | undefined;
      for (let step = 1; step < list.length && !other; step++) {
        const next = questions[list[(at + step) % list.length] ?? index];
        if (next && next.answer !== question?.answer) other = next;
      }
      if (question && other) found.set(question, other);
    }
  }
  return found;
}
