/** Predictions of a live service: labels are those of scikit-learn. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { Client, type LayoutChoice } from "../../src/index.ts";
import { content, transportTo } from "./service.ts";

interface Case {
  readonly model: string;
  readonly rows: string;
  readonly featureCount: number;
  readonly labels: readonly number[];
  readonly scores: readonly (readonly number[])[];
}

const { address, cases } = content<{ address: string; cases: readonly Case[] }>();

for (const { model, rows: path, featureCount, labels, scores } of cases) {
  const data = readFileSync(path);
  const values = new Float64Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
  const rows = labels.map((_, k) => values.subarray(k * featureCount, (k + 1) * featureCount));

  for (const layout of ["row", "column"] satisfies LayoutChoice[]) {
    for (const seeded of layout === "row" ? [true, false] : [true]) {
      test(`${model} in ${layout}s, ${seeded ? "seeded" : "full"}`, async (context) => {
        const client = await Client.connect(transportTo(address), { model, layout, seeded });
        after(() => client.dispose());
        assert.equal(client.offer.layout, layout);
        const count = seeded ? rows.length : 30;
        const began = performance.now();
        assert.deepEqual(await client.predict(rows.slice(0, count)), labels.slice(0, count));
        const seconds = (performance.now() - began) / 1000;
        context.diagnostic(`${(count / seconds).toFixed(0)} rows a second`);
        const found = await client.decisionFunction(rows.slice(0, scores.length));
        found.forEach((row, k) => {
          const greatest = Math.max(...Array.from(row as Float64Array, (score, j) => Math.abs(score - scores[k][j])));
          assert.ok(greatest <= client.offer.scoreErrorBound + 1e-9);
        });
        const probabilities = await client.predictProba(rows.slice(0, 3));
        assert.ok(probabilities.every((row) => Math.abs(row.reduce((sum, share) => sum + share, 0) - 1) < 1e-12));
      });
    }
  }

  test(`${model} in a stream`, async () => {
    const client = await Client.connect(transportTo(address), { model, layout: "row" });
    after(() => client.dispose());
    async function* later() {
      for (const row of rows.slice(0, 100)) {
        await Promise.resolve();
        yield row;
      }
    }
    const found: unknown[] = [];
    for await (const { index, scored, error } of client.stream(later(), { rowsPerItem: 2 })) {
      assert.equal(error, undefined);
      assert.equal(index, found.length);
      found.push(scored?.prediction);
    }
    assert.deepEqual(found, labels.slice(0, 100));
  });
}
