/**
 * SEAL's serialized objects.
 *
 * An object is a header of 16 bytes (magic, header size, major and minor version, compression,
 * reserved, total size), then its members. Nested objects have headers of their own. Sources: SEAL
 * native/src/seal/serialization.h, ciphertext.cpp (save_members) and plaintext.h.
 */

import { packedBytes, packWords } from "./bit-packing.ts";
import { bitLength, type EncryptionParameters } from "./parameters.ts";

/** The length of a parms_id. */
export const PARMS_ID_BYTES = 32;
/** The offset of the residues in a ciphertext. */
export const RESIDUES_AT = 113;
/** The offset of the coefficients in a plaintext. */
export const COEFFICIENTS_AT = 88;

const HEADER_BYTES = 16;
const SEED_BYTES = 64;
const SEED_INFO_BYTES = HEADER_BYTES + 1 + SEED_BYTES;
const MAGIC = 0xa15e;
const MAJOR = 4;
const MINOR = 1; // node-seal 7 reads no greater one; a service takes any
const PACKED_RESIDUES_AT = PARMS_ID_BYTES + SEED_BYTES;

/**
 * Return an object's bytes with another parms_id: a secret key depends on N and the primes only.
 */
export function restamped(data: Uint8Array, parmsId: Uint8Array): Uint8Array<ArrayBuffer> {
  const stamped = data.slice();
  stamped.set(parmsId, HEADER_BYTES);
  return stamped;
}

/** Return a ciphertext of two polynomials in coefficient form, all of whose residues are 0. */
export function blankCiphertext(
  parmsId: Uint8Array,
  polyModulusDegree: number,
  primeCount: number,
): Uint8Array<ArrayBuffer> {
  const words = 2 * polyModulusDegree * primeCount;
  const data = new Uint8Array(RESIDUES_AT + 8 * words);
  const view = new DataView(data.buffer);
  writeHeader(view, 0, data.length);
  data.set(parmsId, HEADER_BYTES);
  const members = HEADER_BYTES + PARMS_ID_BYTES + 1; // behind the flag of the NTT form
  writeInteger(view, members, 2);
  writeInteger(view, members + 8, polyModulusDegree);
  writeInteger(view, members + 16, primeCount);
  view.setFloat64(members + 24, 1, true);
  writeInteger(view, members + 32, 1);
  writeHeader(view, members + 40, HEADER_BYTES + 8 + 8 * words);
  writeInteger(view, RESIDUES_AT - 8, words);
  return data;
}

/** Return a plaintext of so many coefficients, all of which are 0. */
export function blankPlaintext(polyModulusDegree: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(COEFFICIENTS_AT + 8 * polyModulusDegree);
  const view = new DataView(data.buffer);
  const members = HEADER_BYTES + PARMS_ID_BYTES;
  writeHeader(view, 0, data.length);
  writeInteger(view, members, polyModulusDegree);
  view.setFloat64(members + 8, 1, true);
  writeHeader(view, members + 16, HEADER_BYTES + 8 + 8 * polyModulusDegree);
  writeInteger(view, COEFFICIENTS_AT - 8, polyModulusDegree);
  return data;
}

/** The lengths of the ciphertexts of encryption parameters. No two of them are equal. */
export class CiphertextSizes {
  readonly full: number;
  readonly seeded: number;
  readonly packed: number;
  /**
   * Whether a packed one is shorter than a seeded one by a fifth. Where it is not, there is none.
   */
  readonly packs: boolean;
  readonly #residueBits: number;

  constructor(parameters: EncryptionParameters) {
    const words = parameters.polyModulusDegree * parameters.dataPrimes.length;
    this.#residueBits = Math.max(...parameters.dataPrimes.map(bitLength));
    this.full = RESIDUES_AT + 16 * words;
    this.seeded = RESIDUES_AT + 8 * words + SEED_INFO_BYTES;
    this.packed = PACKED_RESIDUES_AT + packedBytes(words, this.#residueBits);
    this.packs = 5 * this.packed <= 4 * this.seeded;
  }

  /** Pack a seeded ciphertext that SEAL wrote. */
  pack(seeded: Uint8Array): Uint8Array {
    const data = new Uint8Array(this.packed);
    data.set(seeded.subarray(HEADER_BYTES, HEADER_BYTES + PARMS_ID_BYTES));
    data.set(seeded.subarray(-SEED_BYTES), PARMS_ID_BYTES);
    data.set(packWords(seeded.subarray(RESIDUES_AT, -SEED_INFO_BYTES), this.#residueBits), PACKED_RESIDUES_AT);
    return data;
  }
}

/** Return the length of a seeded public key of N and so many primes. */
export function publicKeyBytes(polyModulusDegree: number, primeCount: number): number {
  return RESIDUES_AT + 8 * polyModulusDegree * primeCount + SEED_INFO_BYTES;
}

function writeHeader(view: DataView, at: number, totalBytes: number): void {
  view.setUint16(at, MAGIC, true);
  view.setUint8(at + 2, HEADER_BYTES);
  view.setUint8(at + 3, MAJOR);
  view.setUint8(at + 4, MINOR);
  writeInteger(view, at + 8, totalBytes);
}

function writeInteger(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true); // all are below 2^32
}
