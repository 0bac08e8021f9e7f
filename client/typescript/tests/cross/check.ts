/**
 * Checks what other clients have encrypted, and decrypts what a service has answered to it.
 *
 * `node tests/cross/check.ts FOLDER...` reads from each folder, for each item of the vectors,
 * NAME.binpb, a PredictRequest, and NAME.reply, the PredictResponse to it.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { equals, fromBinary } from "@bufbuild/protobuf";
import {
  ItemHeaderSchema,
  PredictRequestSchema,
  PredictResponseSchema,
} from "../../src/generated/sealserve/v1/prediction_pb.ts";
import { areClose, list } from "../vectors/files.ts";
import { codecOf, plaintextsOf, readItem } from "../vectors/item.ts";
import { noiseOf } from "../vectors/rings.ts";

for (const folder of process.argv.slice(2)) {
  for (const name of list("items")) {
    const item = await readItem(name);
    using codec = await codecOf(item);
    const { expected, offer, keys } = item;
    const read = (path: string) => new Uint8Array(readFileSync(join(folder, path)));
    const { header, ciphertexts } = fromBinary(PredictRequestSchema, read(`${name}.binpb`));
    assert.ok(header);
    header.keyId = item.header.keyId; // each makes a public key of its own
    assert.ok(equals(ItemHeaderSchema, header, item.header), `${folder}: the header of ${name}`);
    const plaintexts = plaintextsOf(item, expected.cells);
    assert.equal(ciphertexts.length, plaintexts.length);
    for (const [k, ciphertext] of ciphertexts.entries()) {
      await assert.doesNotReject(
        noiseOf(offer.parameters, keys.coefficients, plaintexts[k], ciphertext),
        `${folder}: ciphertext ${k} of ${name}`,
      );
    }
    const response = fromBinary(PredictResponseSchema, read(`${name}.reply`));
    const none = new Uint8Array(expected.rows.length);
    const { scores, isPlausible } = codec.read(none.length, response.scores?.scores ?? [], none);
    assert.ok(isPlausible && areClose(scores, expected.scores, 1e-15), `${folder}: the scores of ${name}`);
    console.log(folder, name);
  }
}
