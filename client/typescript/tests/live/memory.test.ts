/** Memory of a client that predicts for a long time, in Node: it stays as it is. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Client } from "../../src/index.ts";
import { countObjects, heapBytes } from "../package/live-objects.ts";
import { content, transportTo } from "./service.ts";

interface Content {
  readonly address: string;
  readonly models: readonly string[];
  readonly digit: readonly number[];
  readonly digitLabel: number;
  /** How many predictions of each model. */
  readonly count: number;
}

const { address, models, digit, digitLabel, count } = content<Content>();
const WARM = 300;
const MOST_GROWTH = 3 << 20;

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** What JavaScript and WebAssembly hold, in bytes. Buffers of connections are let go by and by. */
async function used(): Promise<number> {
  for (let k = 0; k < 5; k++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    collectGarbage();
  }
  const { heapUsed, external } = process.memoryUsage(); // external includes array buffers
  return heapUsed + external + heapBytes();
}

const alive = await countObjects();
for (const model of models) {
  test(`${count} predictions of ${model}`, { timeout: 3_600_000 }, async (context) => {
    const before = alive();
    const client = await Client.connect(transportTo(address), { model, layout: "row" });
    const predict = async (times: number) => {
      for (let k = 0; k < times; k++) {
        assert.deepEqual(await client.predict([digit]), [digitLabel]);
      }
    };
    await predict(WARM);
    const [warm, objects] = [await used(), alive()];
    await predict(count);
    const growth = (await used()) - warm;
    context.diagnostic(`${growth} B more after ${count} predictions`);
    assert.ok(growth < MOST_GROWTH, `${growth} B`);
    assert.equal(alive(), objects);
    client.dispose();
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(alive(), before, "all are freed");
  });
}

test("clients that come and go", async () => {
  const before = alive();
  const visit = async (times: number) => {
    for (let k = 0; k < times; k++) {
      const client = await Client.connect(transportTo(address), { model: models[k % models.length] });
      assert.deepEqual(await client.predict([digit]), [digitLabel]);
      client.dispose();
      await assert.rejects(Client.connect(transportTo(address), { model: "absent" }));
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  };
  await visit(10);
  const warm = heapBytes();
  await visit(20);
  assert.equal(alive(), before);
  assert.equal(heapBytes(), warm);
});
