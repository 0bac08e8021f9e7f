/** Vectors of encryption: parameters, keys, seeds, packing and ciphertexts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonObject } from "@bufbuild/protobuf";
import { SealserveError } from "../../src/errors.ts";
import { EncryptionParametersSchema, Scheme } from "../../src/generated/sealserve/v1/parameters_pb.ts";
import { bitsAt, packedBytes, packWords } from "../../src/he/bit-packing.ts";
import { Decryptor } from "../../src/he/decryptor.ts";
import { type CiphertextForm, Encryptor } from "../../src/he/encryptor.ts";
import { PolynomialUnpacker } from "../../src/he/packed-polynomial.ts";
import { columnPacking, rowPacking } from "../../src/he/packing.ts";
import { checkPlaintexts, type EncryptionParameters, sharesRing } from "../../src/he/parameters.ts";
import { buildContext, dataParmsIds, keyParmsId, loadedSeal, scoped } from "../../src/he/seal.ts";
import { CiphertextSizes, RESIDUES_AT } from "../../src/he/seal-format.ts";
import { SecretKey } from "../../src/he/secret-key.ts";
import { parametersOf } from "../../src/protocol/offer-description.ts";
import { exportSecretKey, importSecretKey } from "../../src/secret-key-access.ts";
import { type Changes, changed, fromHex, list, ofJson, readBytes, readJson, sha256Of, toHex } from "./files.ts";
import { noiseOf, older, readKeys } from "./rings.ts";

/** Parameters, and the digests of the levels that SEAL makes of them. */
interface Accepted {
  readonly parameters: EncryptionParameters;
  readonly levels: readonly string[];
}

/**
 * Accept parameters as the SDK does: its own checks, then SEAL, whose digest must be the described
 * one.
 */
async function accepted(content: JsonObject): Promise<Accepted> {
  const message = ofJson(EncryptionParametersSchema, content);
  const parameters = parametersOf(message, message.scheme === Scheme.CKKS ? "ckks" : "bfv");
  checkPlaintexts(parameters);
  const seal = await loadedSeal();
  const t = parameters.scheme === "ckks" ? 2n : parameters.plainModulus; // a client builds no context of CKKS
  const levels = scoped((keep) =>
    dataParmsIds(keep(buildContext(seal, parameters.parameterSet, parameters, t))).map(toHex),
  );
  if (parameters.scheme === "bfv" && levels[0] !== toHex(parameters.parmsId)) {
    throw new SealserveError({ kind: "parameter" }, "parms_id");
  }
  return { parameters, levels };
}

test("parameters.json: accepted", async () => {
  const seal = await loadedSeal();
  interface Case {
    readonly parameters: JsonObject;
    readonly level_parms_ids: readonly string[];
    readonly key_parms_id: string;
  }
  const cases = readJson<{ accepted: readonly Case[] }>("parameters.json").accepted;
  assert.ok(cases.length > 0);
  for (const { parameters: content, level_parms_ids, key_parms_id } of cases) {
    const { parameters, levels } = await accepted(content);
    const keyContext = buildContext(seal, "keys", parameters, 2n);
    assert.equal(toHex(keyParmsId(keyContext)), key_parms_id);
    keyContext.delete();
    if (parameters.scheme === "bfv") {
      // SEAL ends the chain where the plaintext modulus does not fit any more.
      assert.deepEqual(levels.toReversed(), level_parms_ids.slice(level_parms_ids.length - levels.length));
    }
  }
});

test("parameters.json: refused", async () => {
  interface Case {
    readonly parameters: JsonObject;
    readonly fault: string;
  }
  const cases = readJson<{ refused: readonly Case[] }>("parameters.json").refused;
  assert.ok(cases.length > 0);
  for (const { parameters, fault } of cases) {
    if (parameters.scheme === "SCHEME_CKKS" && fault === "parms_id") {
      continue; // a client encrypts nothing for CKKS, so that it compares no parms_id
    }
    await assert.rejects(
      accepted(parameters),
      (error) => error instanceof SealserveError && error.is("parameter"),
      fault,
    );
  }
});

for (const name of list("rings")) {
  test(`rings/${name}`, async () => {
    const seal = await loadedSeal();
    const keys = await readKeys(name);
    const context = buildContext(seal, "keys", keys.ring, 2n);
    assert.equal(toHex(keyParmsId(context)), keys.keyParmsId);
    assert.equal(await sha256Of(keys.publicKey), keys.publicKeyId);
    scoped((keep) => {
      const publicKey = keep(new seal.PublicKey());
      publicKey.loadFromArray(context, older(keys.publicKey, 89, true));
    });
    context.delete();
    // The key of the SDK's own making has the same form.
    const own = await keys.secretKey.publicKey;
    assert.equal(own.data.length, keys.publicKey.length);
    assert.deepEqual(
      older(own.data, 89, true).subarray(0, RESIDUES_AT),
      older(keys.publicKey, 89, true).subarray(0, RESIDUES_AT),
    );
    assert.equal(own.data.at(-65), 1, "BLAKE2Xb");
    assert.equal(own.id, await sha256Of(own.data));
  });
}

test("a secret key is imported for its own ring only, even where another ring's key is as long", async () => {
  const all = await Promise.all(list("rings").map(readKeys));
  const lengths = all.map(({ secretKey }) => exportSecretKey(secretKey).length);
  assert.ok(new Set(lengths).size < lengths.length);
  for (const { ring, secretKey } of all) {
    for (const other of all) {
      const imported = importSecretKey(ring, exportSecretKey(other.secretKey));
      if (other.secretKey === secretKey) {
        assert.ok((await imported).fits(ring));
      } else {
        await assert.rejects(imported, (error) => error instanceof SealserveError && error.is("secretKey"));
      }
    }
  }
});

test("seeds.json", async () => {
  const seal = await loadedSeal();
  interface Case {
    readonly poly_modulus_degree: number;
    readonly primes: readonly string[];
    readonly seed: string;
    readonly first_values: readonly (readonly string[])[];
    readonly values_sha256: string;
  }
  for (const { poly_modulus_degree: N, primes, seed, first_values, values_sha256 } of readJson<{
    cases: readonly Case[];
  }>("seeds.json").cases) {
    // A public key, whose first polynomial is of ones, is expanded for all primes.
    const ring = { polyModulusDegree: N, primes: primes.map(BigInt) };
    const values = scoped((keep) => {
      const context = keep(buildContext(seal, "seeds", ring, 2n));
      const generator = keep(new seal.KeyGenerator(context));
      const seeded: Uint8Array = keep(generator.createPublicKeySerializable()).saveToArray(seal.ComprModeType.none);
      seeded.set(fromHex(seed), seeded.length - 64);
      const key = keep(new seal.PublicKey());
      key.loadFromArray(context, seeded);
      const full: Uint8Array = key.saveToArray(seal.ComprModeType.none);
      return full.slice(RESIDUES_AT + 8 * N * primes.length);
    });
    assert.equal(await sha256Of(values), values_sha256);
    const words = new BigUint64Array(values.buffer);
    first_values.forEach((first, k) => {
      assert.deepEqual(Array.from(words.subarray(k * N, k * N + first.length), String), first);
    });
  }
});

test("packing.json: layouts", () => {
  interface Case {
    readonly layout: string;
    readonly poly_modulus_degree: number;
    readonly feature_count: number;
    readonly score_count: number;
    readonly classes_per_polynomial: number;
    readonly row_count: number;
    readonly rows_per_item: number;
    readonly plaintexts: readonly (readonly [number, number, number][])[];
    readonly score_places: readonly number[][];
  }
  for (const item of readJson<{ layouts: readonly Case[] }>("packing.json").layouts) {
    const make = item.layout === "LAYOUT_ROW" ? rowPacking : columnPacking;
    const packing = make(item.poly_modulus_degree, item.feature_count, item.score_count, item.classes_per_polynomial);
    assert.ok(packing);
    assert.equal(packing.rows, item.rows_per_item);
    assert.equal(packing.ciphertexts, item.plaintexts.length);
    item.plaintexts.forEach((runs, ciphertext) => {
      const expected = new Array<number>(item.poly_modulus_degree).fill(0);
      for (const [place, value, length] of runs) {
        for (let k = 0; k < length; k++) {
          expected[place + k] = value + k;
        }
      }
      const found = new Array<number>(item.poly_modulus_degree).fill(0);
      packing.place(ciphertext, item.row_count, (coefficient, row, feature) => {
        found[coefficient] = 1 + row * item.feature_count + feature;
      });
      assert.deepEqual(found, expected);
    });
    const places = Array.from({ length: packing.polynomials }, (_, pair) =>
      Array.from(packing.places(item.row_count, packing.classesIn(pair).count)),
    );
    assert.deepEqual(places, item.score_places);
  }
  assert.equal(rowPacking(1024, 600, 2, 2), undefined);
  assert.equal(columnPacking(1024, 600, 2, 2), undefined);
});

/** Pack integers of any number of bits, the slow way. */
function packedSlowly(values: readonly bigint[], bits: number): Uint8Array<ArrayBuffer> {
  let whole = values.reduce((sum, value, k) => sum | (value << BigInt(k * bits)), 0n);
  return Uint8Array.from({ length: packedBytes(values.length, bits) }, () => {
    const byte = Number(whole & 0xffn);
    whole >>= 8n;
    return byte;
  });
}

test("packing.json: bits", () => {
  interface Case {
    readonly bits: number;
    readonly values: readonly string[];
    readonly packed: string;
  }
  for (const { bits, values, packed } of readJson<{ bits: readonly Case[] }>("packing.json").bits) {
    const data = fromHex(packed);
    const found = values.map((_, k) => {
      let value = 0n;
      for (let below = 0; below < bits; below += 20) {
        value |= BigInt(bitsAt(data, k * bits + below, Math.min(20, bits - below))) << BigInt(below);
      }
      return String(value);
    });
    assert.deepEqual(found, values);
    assert.deepEqual(packedSlowly(values.map(BigInt), bits), data);
    if (bits <= 60) {
      assert.deepEqual(packWords(new Uint8Array(BigUint64Array.from(values, BigInt).buffer), bits), data);
    }
  }
});

test("packing.json: lifts", () => {
  interface Case {
    readonly bits: number;
    readonly primes: readonly string[];
    readonly values: readonly string[];
    readonly residues: readonly (readonly string[])[];
  }
  for (const { bits, primes, values, residues } of readJson<{ lifts: readonly Case[] }>("packing.json").lifts) {
    const unpacker = new PolynomialUnpacker(primes.map(BigInt), bits);
    const data = packedSlowly(values.map(BigInt), bits);
    const places = values.map((_, k) => k);
    const polynomial = new Uint8Array(8 * primes.length * values.length);
    assert.ok(unpacker.unpack(data, places, polynomial, values.length));
    const found = new BigUint64Array(polynomial.buffer);
    residues.forEach((ofPrime, k) => {
      assert.deepEqual(Array.from(found.subarray(k * values.length, (k + 1) * values.length), String), ofPrime);
    });
  }
});

interface GoodCiphertext extends Changes {
  readonly file: string;
  readonly form: CiphertextForm;
  readonly noise_sha256: string;
}

/** Check the good ciphertexts of a file, and those that the SDK makes in each form. */
async function checkCiphertexts(file: string, forms: readonly CiphertextForm[]): Promise<void> {
  const seal = await loadedSeal();
  const content = readJson<{ ring: string; parameters: JsonObject; good: readonly GoodCiphertext[] }>(file);
  const { parameters } = await accepted(content.parameters);
  const keys = await readKeys(content.ring);
  assert.ok(sharesRing(keys.ring, parameters));
  const t = parameters.plainModulus;
  const plaintext = Array.from({ length: parameters.polyModulusDegree }, (_, i) => BigInt(i) ** 3n % t);
  const sizes = new CiphertextSizes(parameters);
  assert.ok(content.good.length > 0);
  for (const item of content.good) {
    const data = changed(readBytes(item.file), item);
    assert.equal(data.length, sizes[item.form]);
    const noise = await noiseOf(parameters, keys.coefficients, plaintext, data);
    assert.equal(await sha256Of(noise), item.noise_sha256);
  }
  for (const form of forms) {
    using encryptor = new Encryptor(seal, parameters, keys.secretKey, form);
    const ciphertext = encryptor.encrypt((put) => {
      plaintext.forEach((value, k) => {
        put(k, Number(value));
      });
    });
    assert.equal(ciphertext.length, encryptor.ciphertextBytes);
    assert.equal(ciphertext.length, sizes[form]);
    const theirs = readBytes(content.good.find((item) => item.form === form)?.file ?? "");
    const prefix = form === "packed" ? theirs.slice(0, 32) : older(theirs, 89).slice(0, RESIDUES_AT);
    assert.deepEqual(ciphertext.slice(0, prefix.length), prefix);
    await noiseOf(parameters, keys.coefficients, plaintext, ciphertext); // throws if there is too much
    if (form === "full") {
      using decryptor = new Decryptor(seal, parameters, keys.secretKey, undefined);
      const c1At = RESIDUES_AT + (ciphertext.length - RESIDUES_AT) / 2;
      const everywhere = Int32Array.from(plaintext, (_, k) => k);
      const found = decryptor.decrypt(ciphertext.slice(RESIDUES_AT, c1At), ciphertext.slice(c1At), everywhere);
      assert.deepEqual(Array.from(found), plaintext);
    }
    assert.throws(() => encryptor.encrypt((put) => put(0, Number(t))), RangeError);
    assert.throws(() => encryptor.encrypt((put) => put(0, -1)), RangeError);
  }
}

// Malformed ciphertexts are for services.
test("ciphertexts.json: good ones, and those of the SDK", async () => {
  await checkCiphertexts("ciphertexts.json", ["full", "seeded"]);
});

test("packed_ciphertexts.json: good ones, and those of the SDK", async () => {
  await checkCiphertexts("packed_ciphertexts.json", ["packed"]);
});

test("where packing saves little, packed ciphertexts are seeded ones", async () => {
  const { accepted: cases } = readJson<{ accepted: readonly { parameters: JsonObject }[] }>("parameters.json");
  const content = cases.find(({ parameters }) => parameters.parameterSet === "row-2048-54");
  assert.ok(content);
  const { parameters } = await accepted(content.parameters);
  const secretKey = await SecretKey.generate(parameters);
  using encryptor = new Encryptor(await loadedSeal(), parameters, secretKey, "packed");
  assert.equal(encryptor.ciphertextBytes, new CiphertextSizes(parameters).seeded);
});
