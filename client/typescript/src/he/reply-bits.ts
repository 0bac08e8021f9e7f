/** How replies are packed, and whether what they are rounded to still decrypts. */

import { packedBytes } from "./bit-packing.ts";
import { type EncryptionParameters, product } from "./parameters.ts";

/** The bits of a coefficient in a packed reply. See ReplyBits in model.proto. */
export interface ReplyBits {
  /** Of the first polynomial. */
  readonly c0: number;
  /** Of the second polynomial. */
  readonly c1: number;
  /** To the product of so many data primes a reply is lifted. */
  readonly primeCount: number;
}

/** Return the length of a pair whose first polynomial has so many coefficients. */
export function packedPairBytes(bits: ReplyBits, places: number, polyModulusDegree: number): number {
  return packedBytes(places, bits.c0) + packedBytes(polyModulusDegree, bits.c1);
}

/**
 * Tell whether replies of these bits decrypt:
 *
 *     r N / 2^c1 + r / 2^c0 + t (N + 1) / (2 q') < 1/2 - 2^-57    with r = (1 + 2^-7) t / 2
 *
 * Both sides are multiplied by 2^8 2^c1 q'.
 */
export function decrypts(bits: ReplyBits, parameters: EncryptionParameters): boolean {
  const t = parameters.plainModulus;
  const N = BigInt(parameters.polyModulusDegree);
  const lifted = product(parameters.dataPrimes.slice(0, bits.primeCount));
  const ofSecond = 129n * t * N * lifted;
  const ofFirst = (129n * t * lifted) << BigInt(bits.c1 - bits.c0);
  const ofLifting = (t * (N + 1n)) << BigInt(7 + bits.c1);
  const room = ((1n << 56n) - 1n) * (lifted << BigInt(8 + bits.c1));
  return (ofSecond + ofFirst + ofLifting) << 57n < room;
}
