/** The decryptor of replies: it decrypts polynomial pairs with the secret key. */

import { parameterError, replyError } from "../errors.ts";
import { PolynomialUnpacker } from "./packed-polynomial.ts";
import type { EncryptionParameters } from "./parameters.ts";
import type { ReplyBits } from "./reply-bits.ts";
import {
  buildContext,
  dataParmsIds,
  type SEALContext,
  type Seal,
  type Decryptor as SealDecryptor,
  SealRefusal,
  scoped,
} from "./seal.ts";
import { blankCiphertext, COEFFICIENTS_AT, RESIDUES_AT } from "./seal-format.ts";
import { loadSecretKey, type SecretKey } from "./secret-key.ts";

/** Puts the coefficients of a polynomial of a reply at their places; false if it is malformed. */
type Read = (data: Uint8Array, places: ArrayLike<number>, polynomial: Uint8Array, degree: number) => boolean;

/** Decryption under one secret key. */
export class Decryptor {
  readonly #seal: Seal;
  readonly #context: SEALContext;
  readonly #decryptor: SealDecryptor;
  readonly #blank: Uint8Array<ArrayBuffer>;
  readonly #degree: number;
  readonly #polynomialBytes: number;
  readonly #everywhere: Int32Array;
  readonly #readFirst: Read;
  readonly #readSecond: Read;

  /**
   * @param replyBits how replies are packed; undefined if they are residues.
   * @throws SealserveError of kind "parameter": SEAL has no level of the primes to which replies
   * are lifted.
   */
  constructor(seal: Seal, parameters: EncryptionParameters, secretKey: SecretKey, replyBits: ReplyBits | undefined) {
    this.#seal = seal;
    this.#degree = parameters.polyModulusDegree;
    this.#everywhere = Int32Array.from({ length: this.#degree }, (_, index) => index);
    const primes = parameters.dataPrimes.slice(0, replyBits?.primeCount);
    this.#polynomialBytes = 8 * primes.length * this.#degree;
    [this.#readFirst, this.#readSecond] = replyBits
      ? [unpacking(primes, replyBits.c0), unpacking(primes, replyBits.c1)]
      : [residues(primes), residues(primes)];
    this.#context = buildContext(seal, parameters.parameterSet, parameters, parameters.plainModulus);
    try {
      // SEAL's levels have one prime less each, and decrypt with the key's residues for theirs.
      const level = dataParmsIds(this.#context)[parameters.dataPrimes.length - primes.length];
      if (level === undefined) {
        throw parameterError(
          `${parameters.parameterSet}: SEAL has no level of ${primes.length} primes with this plain modulus`,
        );
      }
      this.#blank = blankCiphertext(level, this.#degree, primes.length);
      this.#decryptor = scoped(
        (keep) => new seal.Decryptor(this.#context, loadSecretKey(seal, this.#context, secretKey, keep)),
      );
    } catch (error) {
      this.#context.delete();
      throw error;
    }
  }

  /**
   * Decrypt the coefficients at some places.
   *
   * @param c0 the coefficients at these places.
   * @param c1 all coefficients.
   * @param places ascending.
   * @returns residues modulo t.
   * @throws SealserveError of kind "reply": a length is wrong, a residue is at or above its prime,
   * or a bit behind the last coefficient is set, and nothing is decrypted; or SEAL refuses the
   * ciphertext.
   */
  decrypt(c0: Uint8Array, c1: Uint8Array, places: Int32Array): BigUint64Array {
    const ciphertext = this.#blank.slice();
    const first = ciphertext.subarray(RESIDUES_AT, RESIDUES_AT + this.#polynomialBytes);
    const second = ciphertext.subarray(RESIDUES_AT + this.#polynomialBytes);
    if (
      !this.#readFirst(c0, places, first, this.#degree) ||
      !this.#readSecond(c1, this.#everywhere, second, this.#degree)
    ) {
      throw replyError();
    }
    const plaintext = this.#decrypted(ciphertext);
    const view = new DataView(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength);
    const count = (plaintext.length - COEFFICIENTS_AT) / 8; // SEAL drops leading zeros
    return BigUint64Array.from(places, (place) =>
      place < count ? view.getBigUint64(COEFFICIENTS_AT + 8 * place, true) : 0n,
    );
  }

  #decrypted(ciphertext: Uint8Array): Uint8Array {
    const seal = this.#seal;
    try {
      return scoped((keep) => {
        const loaded = keep(new seal.Ciphertext());
        loaded.loadFromArray(this.#context, ciphertext);
        const plaintext = keep(new seal.Plaintext());
        this.#decryptor.decrypt(loaded, plaintext);
        const bytes: Uint8Array = plaintext.saveToArray(seal.ComprModeType.none);
        return bytes;
      });
    } catch (error) {
      throw error instanceof SealRefusal ? replyError() : error;
    }
  }

  /** Free what it holds. */
  [Symbol.dispose](): void {
    this.#decryptor.delete();
    this.#context.delete();
  }
}

function unpacking(primes: readonly bigint[], bits: number): Read {
  const unpacker = new PolynomialUnpacker(primes, bits);
  return (data, places, polynomial, degree) => unpacker.unpack(data, places, polynomial, degree);
}

/** Read coefficients that are not packed: for each prime their residues, 64-bit little-endian. */
function residues(primes: readonly bigint[]): Read {
  const bounds = primes.map((prime) => ({ low: Number(prime & 0xffffffffn), high: Number(prime >> 32n) }));
  return (data, places, polynomial, degree) => {
    if (data.length !== 8 * primes.length * places.length) {
      return false;
    }
    const from = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const to = new DataView(polynomial.buffer, polynomial.byteOffset, polynomial.byteLength);
    for (let k = 0, at = 0; k < bounds.length; k++) {
      const bound = bounds[k];
      for (let index = 0; index < places.length; index++, at += 8) {
        const low = from.getUint32(at, true);
        const high = from.getUint32(at + 4, true);
        if (high > bound.high || (high === bound.high && low >= bound.low)) {
          return false;
        }
        const offset = 8 * (k * degree + places[index]);
        to.setUint32(offset, low, true);
        to.setUint32(offset + 4, high, true);
      }
    }
    return true;
  };
}
