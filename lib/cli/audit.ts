import type { Command } from "commander";
import { planAudit } from "../audit/audit.js";
import { formatAudit } from "../audit/report.js";
import { loadPair } from "../demo/pair.js";
import {
  audit,
  type Channel,
  connect,
  connectByText,
  type Device,
  evaluate,
  readTask,
  type Task,
  type TaskOptions,
} from "../index.js";
import { invalid } from "../options.js";
import { deviceFlag, integerFlag } from "./flags.js";
import { withBar } from "./progress.js";
import { loadLinks } from "./sources.js";

interface AuditFlags {
  readonly receiver?: string;
  readonly sharer: readonly string[];
  readonly fuser: readonly string[];
  readonly device?: Device;
  readonly layout: string;
  readonly data?: string;
  readonly method?: Task["method"];
  readonly prompt?: NonNullable<TaskOptions["prompt"]>;
  readonly maxNewTokens?: number;
  readonly limit?: number;
  readonly batch?: number;
  readonly json?: boolean;
}

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

/** `audit`: does anything cross? Without a receiver, the embedded pair is audited on the sharer's people. */
export function addAudit(program: Command): void {
  program
    .command("audit")
    .description("does a fuser carry what the sharer read? without a receiver: the pair that comes with the package")
    .option("--receiver <source>", "the model that answers: a folder or owner/name[@revision][:folder]")
    .option("--sharer <source>", "a model whose cache is fused in (repeatable)", collect, [])
    .option("--fuser <source>", "the fuser of the sharer at the same place (repeatable)", collect, [])
    .option("--device <name>", "where models and fusers are: cpu, cuda or cuda:1", deviceFlag)
    .option("--data <path>", "a .jsonl or .parquet file of questions, or a folder of them")
    .option("--layout <name>", "the layout of the data: mmlu-redux, arc-challenge, … or questions", "questions")
    .option("--method <method>", "generate, logits or exact (default: the layout's)")
    .option("--prompt <style>", "direct, reasoning or plain")
    .option("--max-new-tokens <n>", "most tokens of an answer", integerFlag)
    .option("--limit <n>", "the first questions only", integerFlag)
    .option("--batch <n>", "questions in work at once", integerFlag)
    .option("--json", "print the report as one JSON object on the last line")
    .action(async (flags: AuditFlags) => {
      if (flags.receiver === undefined) await auditPair(flags);
      else await auditOwn(flags, flags.receiver);
    });
}

async function auditPair(flags: AuditFlags): Promise<void> {
  if (flags.data !== undefined || flags.sharer.length > 0 || flags.fuser.length > 0 || flags.device !== undefined) {
    throw invalid("receiver", "is needed together with --sharer, --fuser, --device and --data");
  }
  await using pair = await loadPair();
  const { channel, receiver, text } = pair;
  const task = pair.task("sharer", flags.limit);
  await show(channel, task, text, flags, async () => {
    const own = pair.task("receiver", flags.limit);
    const share = async (subject: Channel | typeof receiver): Promise<string> => {
      for await (const event of evaluate(subject, own, flags.batch ? { batch: flags.batch } : {})) {
        if (event.type === "done") return `${(event.accuracy * 100).toFixed(1)} %`;
      }
      return "";
    };
    const [alone, fused] = [await share(receiver), await share(channel)];
    return [
      `  These are questions about people whom only the sharer knows. On ${own.questions.length} about the receiver's own people,`,
      `  which are not in the numbers above, the receiver alone is right in ${alone}, with the sharer in ${fused}.`,
    ];
  });
}

async function auditOwn(flags: AuditFlags, receiver: string): Promise<void> {
  if (flags.data === undefined) throw invalid("data", "is needed: the questions to ask");
  const { method, prompt, maxNewTokens } = flags;
  const task = readTask(flags.layout, flags.data, {
    ...(method && { method }),
    ...(prompt && { prompt }),
    ...(maxNewTokens && { maxNewTokens }),
  });
  await using loaded = await loadLinks({
    receiver,
    sharer: flags.sharer,
    fuser: flags.fuser,
    ...(flags.device && { device: flags.device }),
  });
  using channel = connect(loaded.receiver, loaded.links);
  const [first] = loaded.links;
  using text = first ? connectByText(loaded.receiver, first.sharer) : null;
  await show(channel, task, text, flags, async () => []);
}

async function show(
  channel: Channel,
  task: Task,
  text: Channel | null,
  { limit, batch, json }: AuditFlags,
  beside: () => Promise<readonly string[]>,
): Promise<void> {
  const options = { ...(limit && { limit }), ...(batch && { batch }), ...(text && { text }) };
  const { leftOut } = await planAudit(channel, task, options);
  const report = await withBar((onProgress) => audit(channel, task, { ...options, onProgress }));
  console.log(
    `\nAudit of ${channel.links.map(({ sharer }) => sharer.id).join(", ")} → ${channel.receiver.id}, ${task.name}\n`,
  );
  console.log(formatAudit(report));
  if (leftOut > 0)
    console.log(`  ${leftOut} questions have no partner of the same length and another answer: left out.`);
  const lines = await beside();
  if (lines.length > 0) console.log(`\n${lines.join("\n")}`);
  if (json) console.log(JSON.stringify(report));
}
