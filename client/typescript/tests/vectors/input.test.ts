/** Vectors of what a client does with rows before it encrypts: steps and the grid. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonObject } from "@bufbuild/protobuf";
import { SealserveError } from "../../src/errors.ts";
import { InputSchema } from "../../src/generated/sealserve/v1/model_pb.ts";
import type { Value } from "../../src/protocol/column.ts";
import { InputGrid } from "../../src/protocol/grid.ts";
import { Program } from "../../src/steps/program.ts";
import { areClose, fromBase64, list, number, ofJson, readJson } from "./files.ts";

type Number_ = number | string;

/** The integers of rows; null for a row that is refused. */
function cellsOf(grid: InputGrid, rows: readonly (readonly number[])[]): (number[] | null)[] {
  const { integers, isRefused } = grid.quantize(rows, false);
  return rows.map((_, k) =>
    isRefused[k] ? null : Array.from(integers.subarray(k * grid.featureCount, (k + 1) * grid.featureCount)),
  );
}

test("grid.json", async (context) => {
  interface Case {
    readonly name: string;
    readonly input: JsonObject;
    readonly levels: readonly number[];
    readonly rows: readonly (readonly Number_[])[];
    readonly cells: readonly (readonly number[] | null)[];
  }
  for (const { name, input, levels, rows, cells } of readJson<{ cases: readonly Case[] }>("grid.json").cases) {
    await context.test(name, () => {
      const grid = new InputGrid(name, ofJson(InputSchema, input));
      assert.deepEqual(Array.from(grid.levels), levels);
      assert.deepEqual(
        cellsOf(
          grid,
          rows.map((row) => row.map(number)),
        ),
        cells,
      );
    });
  }
});

for (const file of list("steps")) {
  test(`steps/${file}`, () => {
    interface Content {
      readonly steps: string;
      readonly columns: readonly string[];
      readonly rows: readonly (readonly Value[])[];
      readonly refused: readonly boolean[];
      readonly features: readonly (readonly Number_[] | null)[];
      readonly grid: { readonly minimum: number; readonly maximum: number; readonly step: number };
      readonly cells: readonly (readonly number[] | null)[];
    }
    const content = readJson<Content>(`steps/${file}`);
    const program = Program.parse(fromBase64(content.steps));
    assert.deepEqual(program.columns, content.columns);
    const found = content.rows.map((row) =>
      program.features(row.map((value, k) => (content.columns[k] === "number" ? Number(value) : value))),
    );
    assert.deepEqual(
      found.map(({ isRefused }) => isRefused),
      content.refused,
    );
    found.forEach(({ values }, k) => {
      const expected = content.features[k];
      assert.ok(expected === null ? values.every(Number.isNaN) : areClose(values, expected), `row ${k}: ${values}`);
    });
    const { minimum, maximum, step } = content.grid;
    const grid = new InputGrid(file, {
      featureCount: program.featureCount,
      minimum: [minimum],
      maximum: [maximum],
      step: [step],
      keeps: [],
      group: [],
      exactlyOne: [],
    });
    assert.deepEqual(
      cellsOf(
        grid,
        found.map(({ values }) => Array.from(values)),
      ),
      content.cells,
    );
  });
}

test("refused_steps.json", async (context) => {
  interface Case {
    readonly name: string;
    readonly fault: string;
    readonly steps: string;
  }
  const { cases } = readJson<{ cases: readonly Case[] }>("refused_steps.json");
  for (const { name, fault, steps } of cases) {
    await context.test(name, () => {
      const kind = fault === "malformed" ? "parameter" : "requirement";
      assert.throws(
        () => Program.parse(fromBase64(steps)),
        (error) => error instanceof SealserveError && error.is(kind),
      );
    });
  }
});
