/**
 * Vectors of whole items: descriptions, requests, replies and scores, and what a client refuses.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, equals, fromBinary } from "@bufbuild/protobuf";
import { RowCodec } from "../../src/codec.ts";
import { SealserveError } from "../../src/errors.ts";
import { ModelSchema } from "../../src/generated/sealserve/v1/model_pb.ts";
import {
  type EncryptedScores,
  EncryptedScoresSchema,
  ItemHeaderSchema,
} from "../../src/generated/sealserve/v1/prediction_pb.ts";
import { loadedSeal } from "../../src/he/seal.ts";
import { CiphertextSizes } from "../../src/he/seal-format.ts";
import { modelOf } from "../../src/protocol/description.ts";
import { checkRequirements } from "../../src/protocol/model.ts";
import type { Prediction } from "../../src/protocol/output.ts";
import { areClose, type Change, type Changes, changed, fromBase64, list, readJson, sha256Of } from "./files.ts";
import { codecOf, plaintextsOf, readItem } from "./item.ts";
import { noiseOf, readKeys } from "./rings.ts";

for (const name of list("items")) {
  test(`items/${name}`, async (context) => {
    const item = await readItem(name);
    const { model, offer, header, expected, keys } = item;
    const sizes = new CiphertextSizes(offer.parameters);
    const isSeeded = item.ciphertexts[0].length !== sizes.full;
    const isPacked = offer.takesPackedCiphertexts && sizes.packs;
    const plaintexts = plaintextsOf(item, expected.cells);
    using codec = await codecOf(item, isSeeded);

    await context.test("1. rows on the grid", () => {
      const { integers, isRefused } = codec.quantize(expected.rows);
      assert.ok(!isRefused.includes(1));
      assert.deepEqual(Array.from(integers), expected.cells.flat());
    });
    await context.test("2. ciphertexts, and the SDK's own", async () => {
      assert.equal(item.ciphertexts.length, plaintexts.length);
      for (const [k, ciphertext] of item.ciphertexts.entries()) {
        const noise = await noiseOf(offer.parameters, keys.coefficients, plaintexts[k], ciphertext);
        assert.equal(await sha256Of(noise), expected.noise_sha256[k]);
      }
      const own = [...codec.ciphertexts(codec.quantize(expected.rows))];
      assert.equal(own.length, plaintexts.length);
      for (const [k, ciphertext] of own.entries()) {
        assert.equal(ciphertext.length, !isSeeded ? sizes.full : isPacked ? sizes.packed : sizes.seeded);
        await noiseOf(offer.parameters, keys.coefficients, plaintexts[k], ciphertext); // throws if there is too much
      }
    });
    await context.test("2. the header", () => {
      const written = codec.header(expected.rows.length);
      // A public key is made anew: the vectors' own has another id.
      written.keyId = offer.requiredKey === undefined ? "" : keys.publicKeyId;
      assert.ok(equals(ItemHeaderSchema, written, header));
    });
    await context.test("4. and 5. the reply", () => {
      const none = new Uint8Array(expected.rows.length);
      const { scores, isPlausible } = codec.read(expected.rows.length, item.reply, none);
      assert.ok(isPlausible);
      const integers = scores.map((row) =>
        Array.from(row, (score) => String(BigInt(Math.round(score * offer.scoreScale)))),
      );
      assert.deepEqual(integers, expected.integers);
      assert.ok(areClose(scores, expected.scores, 1e-15));
      assert.deepEqual(
        scores.map((row) => model.output.predict(row)).map((value) => (isArray(value) ? Array.from(value) : value)),
        expected.predictions,
      );
      assert.equal(expected.probabilities !== undefined, model.output.hasProbabilities);
      if (expected.probabilities !== undefined) {
        assert.ok(
          areClose(
            scores.map((row) => model.output.predictProba(row)),
            expected.probabilities,
          ),
        );
      }
    });
    // Not here: 3., phases, which are for clients that decrypt without SEAL.
  });
}

test("replies.json", async (context) => {
  interface Refused {
    readonly name: string;
    readonly item: string;
    readonly fault: string;
    readonly pairs: readonly number[];
    readonly changes: readonly (Changes & {
      readonly pair: number;
      readonly field?: "c0" | "c1";
      readonly form?: "residues" | "packed";
      readonly changes?: readonly Change[];
    })[];
  }
  const { refused } = readJson<{ refused: readonly Refused[] }>("replies.json");
  assert.ok(refused.length > 0);
  for (const { name, item: itemName, fault, pairs, changes } of refused) {
    await context.test(`${fault}: ${name}`, async () => {
      const item = await readItem(itemName);
      using codec = await codecOf(item);
      const reply = pairs.map((index) => item.reply[index]);
      for (const change of changes) {
        reply[change.pair] = changedPair(reply[change.pair], change);
      }
      const none = new Uint8Array(item.expected.rows.length);
      if (fault === "range") {
        assert.equal(codec.read(none.length, reply, none).isPlausible, false);
        assert.equal(codec.read(none.length, reply, none.fill(1)).isPlausible, true, "dummies do not count");
      } else {
        assert.throws(() => codec.read(none.length, reply, none), isReplyError);
      }
    });
  }
});

function changedPair(
  { form }: EncryptedScores,
  change: Changes & { readonly field?: "c0" | "c1"; readonly form?: "residues" | "packed" },
): EncryptedScores {
  assert.ok(form.case === "residues" || form.case === "packed");
  const value = { c0: form.value.c0, c1: form.value.c1 };
  if (change.field !== undefined) {
    value[change.field] = changed(value[change.field] as Uint8Array<ArrayBuffer>, change);
  }
  const travelsAs = change.form ?? form.case;
  return travelsAs === "packed"
    ? create(EncryptedScoresSchema, { form: { case: "packed", value } })
    : create(EncryptedScoresSchema, { form: { case: "residues", value } });
}

function isArray(value: Prediction): value is Float64Array | Uint8Array {
  return ArrayBuffer.isView(value);
}

function isReplyError(error: unknown): boolean {
  return error instanceof SealserveError && error.is("reply");
}

test("descriptions.json", async (context) => {
  interface Case {
    readonly name: string;
    readonly fault: string;
    readonly offers?: readonly string[];
    readonly model: string;
  }
  const { cases } = readJson<{ cases: readonly Case[] }>("descriptions.json");
  assert.ok(cases.length > 0);
  const seal = await loadedSeal();
  const secretKeys = (await Promise.all(list("rings").map(readKeys))).map(({ secretKey }) => secretKey);
  for (const { name, fault, offers, model: data } of cases) {
    await context.test(`${fault || "accepted"}: ${name}`, async () => {
      const use = async () => {
        const model = modelOf(fromBinary(ModelSchema, fromBase64(data)));
        checkRequirements(model);
        const usable = model.offers.filter(({ layout }) => layout !== "ei-slots");
        for (const offer of fault === "" ? usable : usable.slice(0, 1)) {
          const key = secretKeys.find((secretKey) => secretKey.fits(offer.parameters));
          assert.ok(key, "the vectors have a key of each ring");
          const codec = await RowCodec.of(seal, model, offer, key, { clip: false, seeded: true });
          codec[Symbol.dispose]();
        }
        return model;
      };
      if (fault === "") {
        assert.deepEqual(
          (await use()).offers.map(({ parameters }) => parameters.parameterSet),
          offers,
        );
      } else {
        const kind = fault === "requires" ? "requirement" : "parameter";
        await assert.rejects(use(), (error) => error instanceof SealserveError && error.is(kind));
      }
    });
  }
});
