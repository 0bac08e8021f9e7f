/** Memory: every object of SEAL is freed, whatever happens. WebAssembly frees nothing by itself. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { SealserveError } from "../../src/errors.ts";
import { SecretKey } from "../../src/he/secret-key.ts";
import { list } from "../vectors/files.ts";
import { codecOf, readItem } from "../vectors/item.ts";
import { countObjects, heapBytes } from "./live-objects.ts";

const alive = await countObjects();
const ROUNDS = 4;

for (const name of list("items")) {
  test(`an item of ${name}`, async () => {
    const item = await readItem(name);
    const before = alive();
    const rows = item.expected.rows.length;
    const heap: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (const isSeeded of [true, false]) {
        using codec = await codecOf(item, isSeeded);
        assert.ok(alive() > before, "objects are counted");
        for (const _ of codec.ciphertexts(codec.quantize(item.expected.rows))) {
          // each is made and let go
        }
        codec.read(rows, item.reply, new Uint8Array(rows));
        assert.throws(() => codec.read(rows, item.reply.toReversed().slice(1), new Uint8Array(rows)));
      }
      assert.equal(alive(), before);
      heap.push(heapBytes());
    }
    assert.equal(heap.at(-1), heap[1], `WebAssembly grows: ${heap}`);
  });
}

test("keys, and what SEAL refuses", async () => {
  const { offer } = await readItem("row_private");
  const before = alive();
  for (let round = 0; round < 5; round++) {
    using key = await SecretKey.generate(offer.parameters);
    await key.publicKey;
    const composite = { polyModulusDegree: 1024, primes: [3n * 2048n + 1n] }; // 5 times 1229
    await assert.rejects(SecretKey.generate(composite), (error) => error instanceof SealserveError);
  }
  assert.equal(alive(), before);
});
