/**
 * Rings of the vectors: secret keys that everybody has, and the noise of ciphertexts under them.
 */

import { bitsAt } from "../../src/he/bit-packing.ts";
import { Encryptor } from "../../src/he/encryptor.ts";
import type { EncryptionParameters, Ring } from "../../src/he/parameters.ts";
import { buildContext, loadedSeal, scoped } from "../../src/he/seal.ts";
import { CiphertextSizes, RESIDUES_AT } from "../../src/he/seal-format.ts";
import { SecretKey } from "../../src/he/secret-key.ts";
import { importSecretKey } from "../../src/secret-key-access.ts";
import { readBytes, readJson } from "./files.ts";

interface RingFile {
  readonly poly_modulus_degree: number;
  readonly coeff_modulus: readonly string[];
  readonly secret_key: readonly string[];
  readonly key_parms_id: string;
  readonly public_key_id: string;
}

/** The keys of a ring. */
export interface Keys {
  readonly ring: Ring;
  readonly secretKey: SecretKey;
  /** The coefficients of the secret key. */
  readonly coefficients: Int8Array;
  readonly publicKey: Uint8Array<ArrayBuffer>;
  readonly keyParmsId: string;
  readonly publicKeyId: string;
}

/** Read the keys of a ring. */
export async function readKeys(name: string): Promise<Keys> {
  const file = readJson<RingFile>(`rings/${name}/ring.json`);
  const ring = { polyModulusDegree: file.poly_modulus_degree, primes: file.coeff_modulus.map(BigInt) };
  const digits = file.secret_key.join("");
  return {
    ring,
    secretKey: await importSecretKey(ring, older(readBytes(`rings/${name}/secret_key.seal`), 64)),
    coefficients: Int8Array.from(digits, (digit) => "-0+".indexOf(digit) - 1),
    publicKey: readBytes(`rings/${name}/public_key.seal`),
    keyParmsId: file.key_parms_id,
    publicKeyId: file.public_key_id,
  };
}

/**
 * Return an object of SEAL 4.4 as SEAL 4.1 reads it, which refuses a greater minor version: in its
 * headers, of which the second begins at `inner`, and the third, if it is seeded, before its end.
 */
export function older(data: Uint8Array, inner: number, isSeeded = false): Uint8Array<ArrayBuffer> {
  const stamped = data.slice();
  for (const at of [0, inner, ...(isSeeded ? [stamped.length - 81] : [])]) {
    stamped[at + 4] = 1;
  }
  return stamped;
}

const MOST_NOISE = 21;

/**
 * Compute the noise of a ciphertext, c0 + c1 s - round(q m / t).
 *
 * @throws RangeError: a coefficient has more noise than a fresh encryption, or another one modulo
 * another prime.
 */
export async function noiseOf(
  parameters: EncryptionParameters,
  secret: Int8Array,
  plaintext: readonly bigint[],
  ciphertext: Uint8Array,
): Promise<Int8Array<ArrayBuffer>> {
  const full = await expanded(parameters, ciphertext);
  const N = parameters.polyModulusDegree;
  const { dataPrimes, plainModulus: t } = parameters;
  const q = dataPrimes.reduce((whole, factor) => whole * factor);
  const words = new BigUint64Array(full.slice(RESIDUES_AT).buffer);
  const polynomial = (index: number) => words.subarray(index * N, (index + 1) * N);
  const noise = new Int8Array(N);
  dataPrimes.forEach((prime, index) => {
    const c0 = polynomial(index);
    const masked = product(polynomial(dataPrimes.length + index), secret);
    for (let k = 0; k < N; k++) {
      const scaled = (2n * q * (plaintext[k] ?? 0n) + t) / (2n * t);
      const residue = (((c0[k] + masked[k] - scaled) % prime) + prime) % prime;
      const centred = Number(residue > prime / 2n ? residue - prime : residue);
      if (Math.abs(centred) > MOST_NOISE || (index > 0 && centred !== noise[k])) {
        throw new RangeError(`coefficient ${k} has noise ${centred} modulo ${prime}`);
      }
      noise[k] = centred;
    }
  });
  return noise;
}

/** Return a ciphertext in full: SEAL expands the seed of one that has a seed. */
async function expanded(parameters: EncryptionParameters, ciphertext: Uint8Array): Promise<Uint8Array> {
  const seal = await loadedSeal();
  const sizes = new CiphertextSizes(parameters);
  const isPacked = sizes.packs && ciphertext.length === sizes.packed;
  const sealObject = isPacked
    ? await seededOf(parameters, ciphertext)
    : older(ciphertext, 89, ciphertext.length === sizes.seeded);
  return scoped((keep) => {
    const context = keep(buildContext(seal, "a vector", parameters, parameters.plainModulus));
    const loaded = keep(new seal.Ciphertext());
    loaded.loadFromArray(context, sealObject);
    const full: Uint8Array = loaded.saveToArray(seal.ComprModeType.none);
    return full;
  });
}

/** Return the seeded ciphertext of a packed one: with headers, and a word for each residue. */
async function seededOf(parameters: EncryptionParameters, packed: Uint8Array): Promise<Uint8Array> {
  using encryptor = new Encryptor(await loadedSeal(), parameters, await SecretKey.generate(parameters), "seeded");
  const seeded = encryptor.encrypt(() => {});
  seeded.set(packed.subarray(0, 32), 16);
  seeded.set(packed.subarray(32, 96), seeded.length - 64);
  const residues = packed.subarray(96);
  const words = parameters.polyModulusDegree * parameters.dataPrimes.length;
  const bits = (8 * residues.length) / words;
  const view = new DataView(seeded.buffer, seeded.byteOffset);
  for (let k = 0; k < words; k++) {
    let value = 0n;
    for (let below = 0; below < bits; below += 20) {
      value |= BigInt(bitsAt(residues, k * bits + below, Math.min(20, bits - below))) << BigInt(below);
    }
    view.setBigUint64(RESIDUES_AT + 8 * k, value, true);
  }
  return seeded;
}

/** Multiply a polynomial by a ternary one, modulo X^N + 1. The halves of 32 bits add up exactly. */
function product(polynomial: BigUint64Array, ternary: Int8Array): bigint[] {
  const N = polynomial.length;
  const low = Float64Array.from(polynomial, (value) => Number(value & 0xffffffffn));
  const high = Float64Array.from(polynomial, (value) => Number(value >> 32n));
  const [lowSums, highSums] = [new Float64Array(N), new Float64Array(N)];
  const add = (sign: number, from: number, stop: number, to: number) => {
    for (let i = from; i < stop; i++) {
      lowSums[i + to] += sign * low[i];
      highSums[i + to] += sign * high[i];
    }
  };
  ternary.forEach((s, j) => {
    if (s !== 0) {
      add(s, 0, N - j, j);
      add(-s, N - j, N, j - N);
    }
  });
  return Array.from(lowSums, (sum, k) => BigInt(sum) + (BigInt(highSums[k]) << 32n));
}
