/**
 * The choice of the offer that takes some rows in the least time, by the model's published costs.
 */

import { parameterError, SealserveError } from "./errors.ts";
import { CiphertextSizes } from "./he/seal-format.ts";
import type { SecretKey } from "./he/secret-key.ts";
import type { LayoutName, Model, Offer } from "./protocol/model.ts";
import { printable } from "./text.ts";

// What is assumed of a service on another machine: 100 Mbit/s.
const SECONDS_A_BYTE = 80e-9;
// The time that encryption or decryption takes for a byte of ciphertexts.
const CRYPTO_SECONDS_A_BYTE = 20e-9;

/** The layouts that a client encrypts for; "auto" for the fastest of them. */
export type LayoutChoice = "auto" | Exclude<LayoutName, "ei-slots">;

/** What an offer is chosen for. */
export interface OfferWishes {
  readonly rowCount: number;
  readonly layout: LayoutChoice;
  readonly seeded: boolean;
  /** The key that has to fit; undefined if any does. */
  readonly secretKey: SecretKey | undefined;
  /** Whether an item may be longer than a message. */
  readonly streamsRequests: boolean;
}

/**
 * Return the offer that takes rows in the least time.
 *
 * @throws SealserveError of kind "parameter": the model has no such offer that this client
 * understands.
 * @throws SealserveError of kind "secretKey": the key does not fit the ring of any offer.
 */
export function chooseOffer(model: Model, wishes: OfferWishes): Offer {
  const { layout, secretKey, seeded, streamsRequests } = wishes;
  const understood = model.offers.filter(
    (offer) => (layout === "auto" || offer.layout === layout) && isUnderstood(offer),
  );
  if (understood.length === 0) {
    const how = layout === "auto" ? "in a way that this version understands: update sealserve" : `as ${layout}`;
    throw parameterError(`model '${model.name}' is not offered ${how}`);
  }
  const maxBytes = model.limits.maxMessageBytes;
  const usable = understood.filter(
    (offer) => streamsRequests || Math.max(requestBytes(offer, seeded), offer.cost.replyBytes) <= maxBytes,
  );
  if (usable.length === 0) {
    throw parameterError(
      `model '${model.name}': an item does not fit into a message, and this transport streams no requests`,
    );
  }
  const fitting = usable.filter((offer) => secretKey === undefined || secretKey.fits(offer.parameters));
  if (fitting.length === 0) {
    const names = usable.map((offer) => printable(offer.parameters.parameterSet)).join(", ");
    throw new SealserveError(
      { kind: "secretKey" },
      `the secret key fits no ring that model '${model.name}' is offered in: ${names}`,
    );
  }
  // Of each layout the offer that the service prefers; of several layouts, the fastest.
  const preferred = new Map(fitting.toReversed().map((offer) => [offer.layout, offer]));
  return [...preferred.values()].reduce((best, offer) =>
    secondsOf(offer, wishes) < secondsOf(best, wishes) ? offer : best,
  );
}

function secondsOf(offer: Offer, { rowCount, seeded }: OfferWishes): number {
  const { cost, rowsPerItem } = offer;
  const crypto = CRYPTO_SECONDS_A_BYTE * (cost.requestBytes + cost.replyBytes);
  const transfer = SECONDS_A_BYTE * (requestBytes(offer, seeded) + cost.replyBytes);
  return Math.ceil(rowCount / rowsPerItem) * (cost.serverSeconds + crypto + transfer);
}

/** The bytes of an item. */
function requestBytes(offer: Offer, seeded: boolean): number {
  const sizes = new CiphertextSizes(offer.parameters);
  const seededBytes = offer.takesPackedCiphertexts && sizes.packs ? sizes.packed : sizes.seeded;
  return offer.ciphertextsPerItem * (seeded ? seededBytes : sizes.full);
}

/** Tell whether a client encrypts for the layout, and the offer requires the key of its mode. */
function isUnderstood(offer: Offer): boolean {
  return (
    offer.layout !== "ei-slots" && offer.requiredKey === (offer.privateWeights ? "publicEncryptionKey" : undefined)
  );
}
