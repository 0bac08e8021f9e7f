/**
 * Encryption parameters, with the checks that every set must pass: SEAL's tc128 table and bounds.
 */

import { parameterError } from "../errors.ts";

/** The homomorphic encryption scheme: exact integers modulo t, or approximate complex numbers. */
export type SchemeName = "bfv" | "ckks";

/** N and the primes of the key level. A secret key belongs to a ring. */
export interface Ring {
  /** N, the number of coefficients of a polynomial. */
  readonly polyModulusDegree: number;
  /** The primes of the key level. If there are several, SEAL keeps the last for key switching. */
  readonly primes: readonly bigint[];
}

/** Checked encryption parameters. A ciphertext belongs to these. */
export interface EncryptionParameters extends Ring {
  /** The name of the parameter set. */
  readonly parameterSet: string;
  readonly scheme: SchemeName;
  /** The primes for which a fresh ciphertext has residues. */
  readonly dataPrimes: readonly bigint[];
  /** t (BFV); 0 for CKKS. */
  readonly plainModulus: bigint;
  /** The scale of a fresh ciphertext (CKKS); 1 for BFV. */
  readonly scale: number;
  /** SEAL's digest of the parameters, 32 bytes, as a fresh ciphertext carries it. */
  readonly parmsId: Uint8Array;
}

// N -> the most bits that the product of all primes may have, for 128 bits of classical security
// with ternary secrets. Source: SEAL native/src/seal/util/hestdparms.h.
const MAX_MODULUS_BITS: ReadonlyMap<number, number> = new Map([
  [1024, 27],
  [2048, 54],
  [4096, 109],
  [8192, 218],
  [16384, 438],
  [32768, 881],
]);
// SEAL_COEFF_MOD_COUNT_MAX: multiplying as many primes as fit into a hostile message would take
// minutes.
const MAX_PRIMES = 64;
const MAX_PRIME_BITS = 60;
const MAX_PLAIN_MODULUS_BITS = 60;

/** Return the number of bits of an integer that is not negative. */
export function bitLength(value: bigint): number {
  return value === 0n ? 0 : value.toString(2).length;
}

/** Return the product of integers. */
export function product(values: readonly bigint[]): bigint {
  return values.reduce((whole, value) => whole * value, 1n);
}

/**
 * Tell whether keys of one ring are keys of the other. The names of parameter sets do not count.
 */
export function sharesRing(one: Ring, other: Ring): boolean {
  return (
    one.polyModulusDegree === other.polyModulusDegree &&
    one.primes.length === other.primes.length &&
    one.primes.every((prime, index) => prime === other.primes[index])
  );
}

/** Return the primes for which a fresh ciphertext of a ring has residues. */
export function dataPrimesOf(ring: Ring): readonly bigint[] {
  return ring.primes.length > 1 ? ring.primes.slice(0, -1) : ring.primes;
}

/**
 * Check a ring. That its primes are prime is left to SEAL.
 *
 * @throws SealserveError of kind "parameter": it is malformed or below 128 bits of security.
 */
export function checkRing(name: string, ring: Ring): void {
  const { polyModulusDegree: N, primes } = ring;
  const maxBits = MAX_MODULUS_BITS.get(N);
  if (maxBits === undefined) {
    throw parameterError(`${name}: degree ${N} is not one of ${[...MAX_MODULUS_BITS.keys()].join(", ")}`);
  }
  if (primes.length < 1 || primes.length > MAX_PRIMES || new Set(primes).size !== primes.length) {
    throw parameterError(`${name}: the primes must be distinct, at least one and at most ${MAX_PRIMES}`);
  }
  for (const prime of primes) {
    if (bitLength(prime) > MAX_PRIME_BITS || prime <= 1n || prime % BigInt(2 * N) !== 1n) {
      throw parameterError(`${name}: ${prime} is not 1 modulo 2N or has over ${MAX_PRIME_BITS} bits`);
    }
  }
  const bits = bitLength(product(primes));
  if (bits > maxBits) {
    throw parameterError(
      `${name}: ${bits} bits of modulus at degree ${N} are below 128 bits of security; the most is ${maxBits}`,
    );
  }
}

/**
 * Check what parameters have besides their ring.
 *
 * @throws SealserveError of kind "parameter": t or the scale does not fit the scheme, exceeds
 * SEAL's bounds, or is not below q.
 */
export function checkPlaintexts(parameters: EncryptionParameters): void {
  const { parameterSet: name, scheme, plainModulus: t, scale } = parameters;
  const q = product(parameters.dataPrimes);
  if (scheme === "ckks") {
    // It refuses a NaN, too.
    if (t !== 0n || !(scale >= 1 && scale < Number(q))) {
      throw parameterError(
        `${name}: CKKS takes no plaintext modulus, and a scale of at least 1 and below the ciphertext modulus; these ` +
          `are ${t} and ${scale}`,
      );
    }
  } else if (t < 2n || t >= q || bitLength(t) > MAX_PLAIN_MODULUS_BITS || scale !== 1) {
    throw parameterError(
      `${name}: BFV needs a plaintext modulus within 2..2^${MAX_PLAIN_MODULUS_BITS} and below the ciphertext ` +
        `modulus, and scale 1; these are ${t} and ${scale}`,
    );
  }
}
