/** The encryptor of plaintext polynomials: it encrypts them with the secret key. */

import type { EncryptionParameters } from "./parameters.ts";
import {
  buildContext,
  dataParmsIds,
  type SEALContext,
  type Seal,
  type Encryptor as SealEncryptor,
  scoped,
} from "./seal.ts";
import { blankPlaintext, CiphertextSizes, COEFFICIENTS_AT } from "./seal-format.ts";
import { loadSecretKey, type SecretKey } from "./secret-key.ts";

/** In which form ciphertexts travel. A seeded one has half the bytes of a full one. */
export type CiphertextForm = "full" | "seeded" | "packed";

/** Symmetric encryption under one secret key. Its noise is at most 21, as services assume. */
export class Encryptor {
  /** The length of a ciphertext. */
  readonly ciphertextBytes: number;
  /** SEAL's digest of the parameters, as ciphertexts carry it. */
  readonly parmsId: Uint8Array;
  readonly #seal: Seal;
  readonly #context: SEALContext;
  readonly #encryptor: SealEncryptor;
  readonly #form: CiphertextForm;
  readonly #sizes: CiphertextSizes;
  readonly #plaintext: Uint8Array<ArrayBuffer>;
  readonly #words: Uint32Array;
  readonly #plainModulus: number;

  /** @param form "packed" becomes "seeded" where packing saves less than a fifth. */
  constructor(seal: Seal, parameters: EncryptionParameters, secretKey: SecretKey, form: CiphertextForm) {
    this.#seal = seal;
    this.#sizes = new CiphertextSizes(parameters);
    this.#form = form === "packed" && !this.#sizes.packs ? "seeded" : form;
    this.ciphertextBytes = this.#sizes[this.#form];
    this.#plaintext = blankPlaintext(parameters.polyModulusDegree);
    this.#words = new Uint32Array(this.#plaintext.buffer, COEFFICIENTS_AT);
    this.#plainModulus = Number(parameters.plainModulus);
    this.#context = buildContext(seal, parameters.parameterSet, parameters, parameters.plainModulus);
    try {
      [this.parmsId] = dataParmsIds(this.#context);
      this.#encryptor = scoped((keep) => {
        const key = loadSecretKey(seal, this.#context, secretKey, keep);
        // node-seal makes no encryptor without a public key. This one is used by nobody.
        const generator = keep(new seal.KeyGenerator(this.#context, key));
        return new seal.Encryptor(this.#context, keep(generator.createPublicKey()), key);
      });
    } catch (error) {
      this.#context.delete();
      throw error;
    }
  }

  /**
   * Encrypt a polynomial.
   *
   * @param fill sets coefficients, which are 0 otherwise: integers from 0 to below t. SEAL itself
   * would take greater ones silently.
   */
  encrypt(fill: (put: (coefficient: number, value: number) => void) => void): Uint8Array {
    const words = this.#words;
    words.fill(0);
    let isInRange = true;
    fill((coefficient, value) => {
      isInRange &&= value >= 0 && value < this.#plainModulus;
      words[2 * coefficient] = value % 2 ** 32;
      words[2 * coefficient + 1] = value / 2 ** 32;
    });
    try {
      if (!isInRange) {
        throw new RangeError("a coefficient of a plaintext is not within 0..t - 1");
      }
      return this.#encrypted();
    } finally {
      words.fill(0);
    }
  }

  #encrypted(): Uint8Array {
    const seal = this.#seal;
    const none = seal.ComprModeType.none;
    return scoped((keep) => {
      const plaintext = keep(new seal.Plaintext());
      plaintext.loadFromArray(this.#context, this.#plaintext);
      if (this.#form === "full") {
        const ciphertext = keep(new seal.Ciphertext());
        this.#encryptor.encryptSymmetric(plaintext, ciphertext);
        const full: Uint8Array = ciphertext.saveToArray(none);
        return full;
      }
      const seeded: Uint8Array = keep(this.#encryptor.encryptSymmetricSerializable(plaintext)).saveToArray(none);
      return this.#form === "packed" ? this.#sizes.pack(seeded) : seeded;
    });
  }

  /** Free what it holds. */
  [Symbol.dispose](): void {
    this.#encryptor.delete();
    this.#context.delete();
  }
}
