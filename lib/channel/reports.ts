import type { FuseReport, GateReport } from "../types.js";

/** Adds the reports of one link's fusions: positions and times summed, weights averaged over positions. */
export class ReportSum {
  #positions = 0;
  #ms = 0;
  #gates: readonly GateReport[];

  /** `idle`: the gates while nothing has been fused. */
  constructor(idle: readonly GateReport[]) {
    this.#gates = idle;
  }

  add(report: FuseReport): void {
    const all = this.#positions + report.positions;
    const share = all === 0 ? 0 : report.positions / all;
    const before = new Map(this.#gates.map((gate) => [gate.layer, gate]));
    this.#gates = report.gates.map((gate) => {
      const { keyWeight, valueWeight } = before.get(gate.layer) ?? gate;
      return {
        layer: gate.layer,
        key: gate.key,
        value: gate.value,
        keyWeight: keyWeight + share * (gate.keyWeight - keyWeight),
        valueWeight: valueWeight + share * (gate.valueWeight - valueWeight),
      };
    });
    this.#positions = all;
    this.#ms += report.ms;
  }

  total(): FuseReport {
    return { positions: this.#positions, gates: this.#gates.map((gate) => ({ ...gate })), ms: this.#ms };
  }
}
