/** SecretKey: a handle of a secret key, which keeps the key out of logs, copies and messages. */

import { SealserveError } from "../errors.ts";
import { sha256 } from "./digest.ts";
import { checkRing, type Ring, sharesRing } from "./parameters.ts";
import {
  buildContext,
  type Keep,
  keyParmsId,
  loadedSeal,
  type SEALContext,
  type Seal,
  SealRefusal,
  type SealSecretKey,
  scoped,
} from "./seal.ts";
import { publicKeyBytes, restamped } from "./seal-format.ts";

// A key does not depend on t. SEAL stamps it with a parms_id that does: this is the t of keys.
const KEY_PLAIN_MODULUS = 2n;

// Set by the class, the only one that sees its private field.
let read: (key: SecretKey) => Uint8Array<ArrayBuffer>;
let make: (ring: Ring, data: Uint8Array<ArrayBuffer>, created: Date, publicKey?: PublicKey) => SecretKey;

/** A public encryption key, seeded, and its id. It is not secret. */
export interface PublicKey {
  readonly data: Uint8Array<ArrayBuffer>;
  /** The SHA-256 of the data. */
  readonly id: string;
}

/**
 * A SEAL secret key for one ring: a degree N and primes. Make one with {@link SecretKey.generate}.
 *
 * Someone who learns many scores decrypted from a malicious service's replies can learn the key.
 * Make a new one from time to time, and never send scores, errors or decisions to retry back to the
 * service's operator.
 */
export class SecretKey {
  /** The ring that the key is of. */
  readonly ring: Ring;
  /** When the key was made. */
  readonly created: Date;
  #data: Uint8Array<ArrayBuffer> | undefined;
  #publicKey: Promise<PublicKey> | undefined;

  private constructor(ring: Ring, data: Uint8Array<ArrayBuffer>, created: Date) {
    this.ring = { polyModulusDegree: ring.polyModulusDegree, primes: [...ring.primes] };
    this.#data = data;
    this.created = created;
  }

  /**
   * Make a new key with SEAL's generator.
   *
   * @param ring such as the parameters of an offer.
   * @throws SealserveError of kind "parameter": the ring is malformed or below 128 bits of
   * security.
   */
  static async generate(ring: Ring): Promise<SecretKey> {
    checkRing("a secret key", ring);
    const seal = await loadedSeal();
    const data = withKeyContext(seal, ring, (context, keep) => {
      const generator = keep(new seal.KeyGenerator(context));
      const bytes: Uint8Array = keep(generator.secretKey()).saveToArray(seal.ComprModeType.none);
      return new Uint8Array(bytes);
    });
    return new SecretKey(ring, data, new Date());
  }

  /** Tell whether the key is of this ring, whatever the name of its parameter set. */
  fits(ring: Ring): boolean {
    return sharesRing(this.ring, ring);
  }

  /** The public encryption key, with which services hide weights. It is made on the first use. */
  get publicKey(): Promise<PublicKey> {
    this.#publicKey ??= this.#generatePublicKey();
    return this.#publicKey;
  }

  /** A secret key cannot be written as JSON. */
  toJSON(): never {
    throw new SealserveError({ kind: "secretKey" }, "a secret key cannot be written as JSON");
  }

  /** Overwrite the key. Nothing can be encrypted with it afterwards. */
  [Symbol.dispose](): void {
    this.#data?.fill(0);
    this.#data = undefined;
  }

  async #generatePublicKey(): Promise<PublicKey> {
    const seal = await loadedSeal();
    const data = withKeyContext(seal, this.ring, (context, keep) => {
      const generator = keep(new seal.KeyGenerator(context, loadSecretKey(seal, context, this, keep)));
      const bytes: Uint8Array = keep(generator.createPublicKeySerializable()).saveToArray(seal.ComprModeType.none);
      return new Uint8Array(bytes);
    });
    if (data.length !== publicKeyBytes(this.ring.polyModulusDegree, this.ring.primes.length)) {
      throw new SealserveError({ kind: "secretKey" }, "SEAL has made a public key that is not seeded");
    }
    return { data, id: await sha256(data) };
  }

  static {
    read = (key) => {
      if (key.#data === undefined) {
        throw new SealserveError({ kind: "secretKey" }, "the secret key has been disposed of: make another one");
      }
      return key.#data;
    };
    make = (ring, data, created, publicKey) => {
      const key = new SecretKey(ring, data, created);
      if (publicKey !== undefined) {
        key.#publicKey = Promise.resolve(publicKey);
      }
      return key;
    };
  }
}

/**
 * Return the key as an uncompressed SEAL object, in a copy.
 *
 * @throws SealserveError of kind "secretKey": it has been disposed of.
 */
export function secretBytes(key: SecretKey): Uint8Array<ArrayBuffer> {
  return read(key).slice();
}

/** Load a key into SEAL, for a context of its ring. */
export function loadSecretKey(seal: Seal, context: SEALContext, key: SecretKey, keep: Keep): SealSecretKey {
  const stamped = restamped(read(key), keyParmsId(context));
  try {
    const loaded = keep(new seal.SecretKey());
    loaded.loadFromArray(context, stamped);
    return loaded;
  } finally {
    stamped.fill(0);
  }
}

/**
 * Make a handle of an uncompressed SEAL object.
 *
 * @param publicKey that has been made of the key; by default another one is made when it is needed.
 * @throws SealserveError of kind "secretKey": these bytes are no key of the ring.
 */
export async function secretKeyOf(
  ring: Ring,
  data: Uint8Array,
  created: Date,
  publicKey?: PublicKey,
): Promise<SecretKey> {
  checkRing("a secret key", ring);
  const seal = await loadedSeal();
  try {
    // SEAL compares the parms_id. By their length alone, keys of two rings may be the same.
    const bytes = new Uint8Array(data);
    withKeyContext(seal, ring, (context, keep) => keep(new seal.SecretKey()).loadFromArray(context, bytes));
    return make(ring, bytes, created, publicKey);
  } catch (error) {
    if (error instanceof SealRefusal) {
      // The cause may quote the key: do not chain it.
      throw new SealserveError({ kind: "secretKey" }, "these bytes are no secret key of the ring");
    }
    throw error;
  }
}

function withKeyContext<R>(seal: Seal, ring: Ring, operation: (context: SEALContext, keep: Keep) => R): R {
  return scoped((keep) => operation(keep(buildContext(seal, "a secret key", ring, KEY_PLAIN_MODULUS)), keep));
}
