/** SHA-256, as services name things by it, and the WebCrypto that computes it. */

import { unsupportedError } from "../errors.ts";

/**
 * Return WebCrypto.
 *
 * @throws SealserveError of kind "unsupported": browsers have it only for pages that came by HTTPS or
 * from this machine.
 */
export function webCrypto(): SubtleCrypto {
  const { crypto }: { readonly crypto?: Partial<Crypto> } = globalThis;
  if (crypto?.subtle === undefined) {
    throw unsupportedError("webCrypto", "WebCrypto is missing: serve the page by HTTPS, or from localhost");
  }
  return crypto.subtle;
}

/** Return the SHA-256 of bytes as 64 lower-case hexadecimal digits. */
export async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await webCrypto().digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
