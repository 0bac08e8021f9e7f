/**
 * Packed polynomials, lifted to the residues that SEAL decrypts.
 *
 * A coefficient c' of b bits becomes round(q' c' / 2^b) modulo q', the product of some primes. Let
 * m = c' q' / p mod 2^b for a prime p of q'. Then
 *
 *     round(q' c' / 2^b) = round(p m / 2^b)   (mod p)
 *
 * With u = q' c' + 2^(b - 1) mod 2^b, which is p m + 2^(b - 1) mod 2^b too, 2^b times either side
 * is 2^(b - 1) - u modulo p. The right side is at most p, and p stands for 0.
 *
 * Numbers are four limbs of 20 bits, shifted to the left so that 2^b is 2^80: then p m is computed
 * as is done by hand, and the limbs from 2^80 on are the result. A product of two limbs has 40
 * bits, and a double holds the sum of any column.
 */

import { bitsAt, isPacked } from "./bit-packing.ts";

const LIMB_BITS = 20;
const LIMB = 2 ** LIMB_BITS;
const LIMB_MASK = LIMB - 1;
const LIMBS = 4;
const ALL_BITS = LIMBS * LIMB_BITS;
const PRIME_LIMBS = 3;

interface Factor {
  /** Of the prime. */
  readonly prime: readonly number[];
  /** Of q' / p modulo 2^80; undefined if it is 1. */
  readonly others: readonly number[] | undefined;
}

/** Unpacks the coefficients of a polynomial and lifts them to a product of primes. */
export class PolynomialUnpacker {
  readonly #bits: number;
  readonly #factors: readonly Factor[];

  /**
   * @param primes at most 60 bits each.
   * @param bits of a coefficient, within the bounds of `bit-packing`.
   */
  constructor(primes: readonly bigint[], bits: number) {
    this.#bits = bits;
    this.#factors = primes.map((prime) => {
      const others = primes.reduce((whole, other) => (other === prime ? whole : whole * other), 1n);
      return { prime: limbsOf(prime, PRIME_LIMBS), others: others === 1n ? undefined : limbsOf(others, LIMBS) };
    });
  }

  /**
   * Unpack coefficients into residues.
   *
   * @param data one coefficient for each place, and nothing else.
   * @param places where the coefficients go among those of a polynomial.
   * @param polynomial the residues of a polynomial of `degree` coefficients for each prime in turn,
   * 64-bit little-endian.
   * @returns whether `data` has that form. If not, nothing is written.
   */
  unpack(data: Uint8Array, places: ArrayLike<number>, polynomial: Uint8Array, degree: number): boolean {
    if (!isPacked(data, this.#bits, places.length)) {
      return false;
    }
    const view = new DataView(polynomial.buffer, polynomial.byteOffset, polynomial.byteLength);
    const c = new Float64Array(LIMBS);
    const m = new Float64Array(LIMBS);
    for (let index = 0; index < places.length; index++) {
      this.#read(data, index * this.#bits, c);
      for (let k = 0; k < this.#factors.length; k++) {
        const { prime, others } = this.#factors[k];
        if (others !== undefined) {
          multiplyLow(c, others, m);
        }
        writeRounded(prime, others === undefined ? c : m, view, 8 * (k * degree + places[index]));
      }
    }
    return true;
  }

  /** Read the coefficient that begins at a bit, shifted to the left. */
  #read(data: Uint8Array, start: number, limbs: Float64Array): void {
    for (let limb = LIMBS - 1, below = this.#bits; limb >= 0; limb--, below -= LIMB_BITS) {
      const count = Math.min(Math.max(below, 0), LIMB_BITS);
      limbs[limb] = bitsAt(data, start + Math.max(below - LIMB_BITS, 0), count) << (LIMB_BITS - count);
    }
  }
}

function limbsOf(value: bigint, count: number): readonly number[] {
  return Array.from({ length: count }, (_, limb) => Number((value >> BigInt(limb * LIMB_BITS)) & BigInt(LIMB_MASK)));
}

/** Compute a b modulo 2^80. */
function multiplyLow(a: Float64Array, b: readonly number[], result: Float64Array): void {
  let sum = 0;
  for (let column = 0; column < LIMBS; column++) {
    for (let i = 0; i <= column; i++) {
      sum += a[i] * b[column - i];
    }
    const carry = Math.floor(sum / LIMB);
    result[column] = sum - carry * LIMB;
    sum = carry;
  }
}

/** Write round(p m / 2^80) modulo p, as 64 bits. */
function writeRounded(p: readonly number[], m: Float64Array, view: DataView, offset: number): void {
  const [p0, p1, p2] = p;
  const [m0, m1, m2, m3] = m;
  let carry = Math.floor((p0 * m0) / LIMB);
  carry = Math.floor((p0 * m1 + p1 * m0 + carry) / LIMB);
  carry = Math.floor((p0 * m2 + p1 * m1 + p2 * m0 + carry) / LIMB);
  carry = Math.floor((p0 * m3 + p1 * m2 + p2 * m1 + LIMB / 2 + carry) / LIMB);
  let sum = p1 * m3 + p2 * m2 + carry;
  let high = Math.floor(sum / LIMB);
  const r0 = sum - high * LIMB;
  sum = p2 * m3 + high;
  high = Math.floor(sum / LIMB);
  const r1 = sum - high * LIMB;
  const isPrime = Number(r0 === p0) & Number(r1 === p1) & Number(high === p2);
  const kept = isPrime - 1; // all bits, or none
  view.setUint32(offset, (r0 | (r1 << LIMB_BITS)) & kept, true);
  view.setUint32(offset + 4, ((r1 >>> 12) | (high << 8)) & kept, true);
}

/** The bits to which limbs are shifted: a coefficient has at most as many. */
export const MAX_COEFFICIENT_BITS = ALL_BITS;
