import { join } from "node:path";
import { extractAnswer, layerMap, project, segments, temperatureAt } from "../testing.js";
import { readSafetensors } from "../weights/safetensors.js";
import { type CaseResult, type Golden, readGoldens, readJson, rowsOf, runCase } from "./golden.js";

interface UnitTest {
  readonly name: string;
  readonly cls: string;
  readonly kwargs: Readonly<Record<string, number | boolean | string>>;
  readonly shape: {
    readonly B: number;
    readonly N: number;
    readonly Hs: number;
    readonly Ds: number;
    readonly Ht: number;
    readonly Dt: number;
  };
  readonly temperature: number;
  readonly n_noise: number;
}

interface Misc {
  readonly mappings: readonly {
    readonly target: number;
    readonly source: number;
    readonly k: number;
    readonly last_aligned: readonly (readonly [number, readonly number[]])[];
    readonly k_nearest: readonly (readonly [number, readonly number[]])[];
  }[];
  readonly temperature: readonly {
    readonly step: number;
    readonly anneal: number;
    readonly T0: number;
    readonly T1: number;
    readonly temp: number;
  }[];
  readonly kv_index: readonly {
    readonly instruction: number;
    readonly response: number;
    readonly proportion: number;
    readonly order: "front" | "back";
    readonly sections: readonly (readonly [number, number])[];
  }[];
  readonly answers: readonly {
    readonly text: string;
    readonly answer: string | null;
  }[];
}

/** Runs unit.json: projectors one by one, each batch element by itself. */
export async function runUnits(folder: string, report: (result: CaseResult) => void): Promise<void> {
  const file = join(folder, "unit.safetensors");
  const table = {
    files: [file],
    tensors: (await readSafetensors(file)).tensors,
  };
  const goldens = await readGoldens(file);
  for (const test of (await readJson<{ readonly tests: readonly UnitTest[] }>(join(folder, "unit.json"))).tests) {
    report(
      await runCase("unit.json", test.name, async (check) => {
        const golden = (name: string): Golden => {
          const found = goldens.get(`${test.name}/${name}`);
          if (!found) throw new Error(`${test.name}/${name} is not in unit.safetensors`);
          return found;
        };
        const { B, N, Hs, Ds, Ht, Dt } = test.shape;
        const projector = {
          kind: test.cls,
          options: test.kwargs,
          sharer: { kvHeads: Hs, headDim: Ds },
          receiver: { kvHeads: Ht, headDim: Dt },
          table,
          prefix: `${test.name}/w/`,
        };
        for (let batch = 0; batch < B; batch++) {
          const rows = {
            sharerKey: rowsOf(golden("sk"), batch),
            sharerValue: rowsOf(golden("sv"), batch),
            receiverKey: rowsOf(golden("tk"), batch),
            receiverValue: rowsOf(golden("tv"), batch),
          };
          const noise = Array.from({ length: test.n_noise }, (_, i) => rowsOf(golden(`noise${i}`), batch));
          const out = await project(projector, rows, N, {
            temperature: test.temperature,
            ...(noise.length > 0 ? { noise } : {}),
          });
          check.close("out_k", out.key, rowsOf(golden("out_k"), batch));
          check.close("out_v", out.value, rowsOf(golden("out_v"), batch));
        }
      }),
    );
  }
}

/** Runs misc.json: layer maps, temperature schedule, span segmentation, answer extraction. */
export async function runMisc(folder: string, report: (result: CaseResult) => void): Promise<void> {
  const misc = await readJson<Misc>(join(folder, "misc.json"));
  for (const { target, source, k, last_aligned, k_nearest } of misc.mappings) {
    report(
      await runCase("misc.json", `layer map ${target} from ${source}, k ${k}`, async (check) => {
        for (const [kind, expected] of [
          ["last-aligned", last_aligned],
          ["nearest", k_nearest],
        ] as const) {
          check.same(
            kind,
            layerMap(kind, target, source, k).map((layers, i) => [i, layers]),
            expected,
          );
        }
      }),
    );
  }
  for (const { step, anneal, T0, T1, temp } of misc.temperature) {
    report(
      await runCase("misc.json", `temperature at ${step}`, async (check) => {
        const actual = temperatureAt(step, {
          initial: T0,
          final: T1,
          steps: anneal,
        });
        if (!(Math.abs(actual - temp) <= 1e-6 * Math.abs(temp))) check.fail(`${actual}, expected ${temp}`);
      }),
    );
  }
  for (const { instruction, response, proportion, order, sections } of misc.kv_index) {
    report(
      await runCase("misc.json", `segments ${instruction}+${response}, ${proportion} ${order}`, async (check) => {
        check.same("sections", segments(instruction, response, proportion, order), sections);
      }),
    );
  }
  for (const { text, answer } of misc.answers) {
    report(
      await runCase("misc.json", `answer in ${JSON.stringify(text)}`, async (check) => {
        check.same("answer", [extractAnswer(text)], [answer]);
      }),
    );
  }
}
