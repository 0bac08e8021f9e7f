/**
 * Access to the bytes of secret keys, in a module of its own: a search for its name finds every
 * program that reads one.
 */

import type { Ring } from "./he/parameters.ts";
import { type SecretKey, secretBytes, secretKeyOf } from "./he/secret-key.ts";

/** Return the key as an uncompressed SEAL object. Whoever has it decrypts everything. */
export function exportSecretKey(key: SecretKey): Uint8Array<ArrayBuffer> {
  return secretBytes(key).slice();
}

/**
 * Make a handle of what {@link exportSecretKey} returned.
 *
 * @param ring the ring of the key.
 * @param created when the key was made, if that is known.
 * @throws SealserveError of kind "secretKey": these bytes are no key of the ring.
 */
export function importSecretKey(ring: Ring, data: Uint8Array, created: Date = new Date()): Promise<SecretKey> {
  return secretKeyOf(ring, data, created);
}
