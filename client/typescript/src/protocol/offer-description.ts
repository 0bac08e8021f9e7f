/** Descriptions of offers, checked and converted. */

import { parameterError } from "../errors.ts";
import { KeyKind } from "../generated/sealserve/v1/keys_pb.ts";
import {
  type Cost as CostMessage,
  type ObservedError as ObservedMessage,
  Offer_CiphertextForm,
  Offer_Verdict,
  type Offer as OfferMessage,
} from "../generated/sealserve/v1/model_pb.ts";
import {
  Layout,
  type EncryptionParameters as ParametersMessage,
  Scheme,
  Weights,
} from "../generated/sealserve/v1/parameters_pb.ts";
import { arePossibleBits } from "../he/bit-packing.ts";
import {
  checkPlaintexts,
  checkRing,
  dataPrimesOf,
  type EncryptionParameters,
  type SchemeName,
} from "../he/parameters.ts";
import { printable } from "../text.ts";
import type { Cost, KeyKindName, LayoutName, ObservedError, Offer, Verdict } from "./model.ts";

const LAYOUTS: ReadonlyMap<Layout, LayoutName> = new Map([
  [Layout.ROW, "row"],
  [Layout.COLUMN, "column"],
  [Layout.EI_SLOTS, "ei-slots"],
]);
const SCHEMES: ReadonlyMap<Scheme, SchemeName> = new Map([
  [Scheme.BFV, "bfv"],
  [Scheme.CKKS, "ckks"],
]);
const KEYS: ReadonlyMap<KeyKind, KeyKindName> = new Map([
  [KeyKind.EVALUATION_KEYS, "evaluationKeys"],
  [KeyKind.PUBLIC_ENCRYPTION_KEY, "publicEncryptionKey"],
]);
const VERDICTS: ReadonlyMap<Offer_Verdict, Verdict> = new Map([
  [Offer_Verdict.OK, "ok"],
  [Offer_Verdict.UNCHECKED, "unchecked"],
  [Offer_Verdict.WARN, "warn"],
  [Offer_Verdict.REFUSE, "refuse"],
]);
const MAX_CIPHERTEXT_FORMS = 16;
// The most bytes that a cost may name: far more than any machine has.
const MAX_BYTES = 2 ** 48;
const PARMS_ID_BYTES = 32;

/** Return the name of a layout; undefined if this version does not know it. */
export function layoutName(layout: Layout): LayoutName | undefined {
  return LAYOUTS.get(layout);
}

/** Return the number of a layout. */
export function layoutNumber(name: LayoutName): Layout {
  return name === "row" ? Layout.ROW : name === "column" ? Layout.COLUMN : Layout.EI_SLOTS;
}

/** Tell whether an offer has no enumerator that this version does not know. */
export function isKnown(message: OfferMessage): boolean {
  return (
    LAYOUTS.has(message.layout) &&
    message.parameters !== undefined &&
    SCHEMES.has(message.parameters.scheme) &&
    (message.weights === Weights.OPEN || message.weights === Weights.PRIVATE) &&
    (message.requiredKey === KeyKind.UNSPECIFIED || KEYS.has(message.requiredKey)) &&
    (message.verdict === Offer_Verdict.UNSPECIFIED || VERDICTS.has(message.verdict))
  );
}

/**
 * Check and convert an offer that {@link isKnown}.
 *
 * @throws SealserveError of kind "parameter": it contradicts itself, is out of bounds, or has less
 * than 128 bits of security.
 */
export function offerOf(message: OfferMessage, scoreCount: number): Offer {
  const layout = LAYOUTS.get(message.layout);
  const described = message.parameters;
  const scheme = described && SCHEMES.get(described.scheme);
  if (layout === undefined || described === undefined || scheme === undefined) {
    throw parameterError("an offer is unknown to this version");
  }
  const name = described.parameterSet;
  if (printable(name) !== name) {
    throw parameterError("the name of a parameter set is too long, or has characters that cannot be shown");
  }
  const cost = costOf(message.cost);
  checkNumbers(name, message, cost, scoreCount);
  const parameters = parametersOf(described, scheme);
  if ((layout === "ei-slots") !== (scheme === "ckks")) {
    throw parameterError(`${name}: ${scheme} is not the scheme of layout ${layout}`);
  }
  if (!(Number.isFinite(message.scoreScale) && message.scoreScale > 0)) {
    throw parameterError(`${name}: the score scale is not above 0`);
  }
  const integerCount = scheme === "bfv" ? scoreCount : 0;
  if (message.scoreCenters.length !== integerCount || message.scoreRadii.length !== integerCount) {
    throw parameterError(`${name}: ${integerCount} score centers and radii are needed`);
  }
  checkScores(name, message, parameters.plainModulus);
  checkReplyBits(name, message, parameters);
  checkPlaintexts(parameters);
  return {
    layout,
    parameters,
    privateWeights: message.weights === Weights.PRIVATE,
    rowsPerItem: message.rowsPerItem,
    classesPerPolynomial: message.classesPerPolynomial,
    ciphertextsPerItem: message.ciphertextsPerItem,
    scoreScale: message.scoreScale,
    scoreCenters: message.scoreCenters,
    scoreRadii: message.scoreRadii,
    scoreErrorBound: message.scoreErrorBound,
    inputRoundingErrorBound: message.inputRoundingErrorBound,
    weightRoundingErrorBound: message.weightRoundingErrorBound,
    expectedScoreError: message.expectedScoreError,
    observedError: message.observedError && observedOf(message.observedError),
    cost,
    requiredKey: KEYS.get(message.requiredKey),
    verdict: VERDICTS.get(message.verdict),
    replyBits: message.replyBits && {
      c0: message.replyBits.c0,
      c1: message.replyBits.c1,
      primeCount: message.replyBits.primeCount,
    },
    takesPackedCiphertexts: message.ciphertextForms
      .slice(0, MAX_CIPHERTEXT_FORMS)
      .includes(Offer_CiphertextForm.PACKED),
  };
}

/**
 * Check and convert encryption parameters.
 *
 * @throws SealserveError of kind "parameter": they are malformed or below 128 bits of security.
 */
export function parametersOf(message: ParametersMessage, scheme: SchemeName): EncryptionParameters {
  const ring = { polyModulusDegree: message.polyModulusDegree, primes: message.coeffModulus };
  checkRing(message.parameterSet, ring);
  const dataPrimes = dataPrimesOf(ring);
  if (message.dataPrimeCount !== dataPrimes.length) {
    throw parameterError(
      `${message.parameterSet}: ${message.dataPrimeCount} data primes; SEAL makes other numbers of these`,
    );
  }
  if (message.parmsId.length !== PARMS_ID_BYTES) {
    throw parameterError(`${message.parameterSet}: its parms_id has not ${PARMS_ID_BYTES} bytes`);
  }
  return {
    ...ring,
    parameterSet: message.parameterSet,
    scheme,
    dataPrimes,
    plainModulus: message.plainModulus,
    scale: message.ciphertextScale,
    parmsId: message.parmsId,
  };
}

/** Check the numbers of an offer that no type checks. */
function checkNumbers(name: string, message: OfferMessage, cost: Cost, scoreCount: number): void {
  const { classesPerPolynomial, observedError: observed } = message;
  if (classesPerPolynomial < 1 || classesPerPolynomial > scoreCount) {
    throw parameterError(`${name}: ${classesPerPolynomial} classes a polynomial, of ${scoreCount} scores`);
  }
  if (message.rowsPerItem < 1 || message.ciphertextsPerItem < 1) {
    throw parameterError(`${name}: an item has no rows or no ciphertexts`);
  }
  const sizes = [cost.requestBytes, cost.replyBytes, cost.heldBytes];
  if (Math.min(...sizes) < 1 || Math.max(...sizes, cost.keyBytes) > MAX_BYTES) {
    throw parameterError(`${name}: its costs in bytes are zero or absurd`);
  }
  const amounts = [
    message.scoreErrorBound,
    message.weightRoundingErrorBound,
    message.inputRoundingErrorBound,
    message.expectedScoreError,
    observed?.scoreError ?? 0,
    observed?.rmsScoreError ?? 0,
    cost.serverSeconds,
  ];
  if (!amounts.every((value) => value >= 0 && Number.isFinite(value))) {
    throw parameterError(`${name}: an error or the time of the service is negative or no number`);
  }
  const shares = [observed?.labelDisagreement ?? 0, observed?.expectedLabelDisagreement ?? 0];
  if (!shares.every((share) => share >= 0 && share <= 1)) {
    throw parameterError(`${name}: a share of rows is below 0, above 1 or no number`);
  }
  if (Number(observed?.rowCount ?? 0n) > MAX_BYTES) {
    throw parameterError(`${name}: its observed errors are of an absurd number of rows`);
  }
}

/** Check that every integer score within the radii can be computed, and is a number. */
function checkScores(name: string, message: OfferMessage, t: bigint): void {
  if (message.scoreRadii.some((radius) => radius < 0n || 2n * radius + 1n >= t)) {
    throw parameterError(`${name}: scores wrap around: their range is negative or wider than the plaintext modulus`);
  }
  // Distances from a centre are up to t / 2.
  const ends = message.scoreCenters.map((center) => (center < 0n ? -center : center) + t / 2n);
  if (!ends.every((end) => end < 1n << 63n && Number.isFinite(Number(end) / message.scoreScale))) {
    throw parameterError(`${name}: scores are too large: the centre is too far from zero, or the scale too small`);
  }
}

/** Check that replies can be unpacked and lifted, if there are reply bits. */
function checkReplyBits(name: string, message: OfferMessage, parameters: EncryptionParameters): void {
  const bits = message.replyBits;
  if (bits === undefined) {
    return;
  }
  if (parameters.scheme !== "bfv") {
    throw parameterError(`${name}: only replies of BFV are packed`);
  }
  if (!arePossibleBits(bits.c0) || !arePossibleBits(bits.c1) || bits.c0 > bits.c1) {
    throw parameterError(`${name}: replies of ${bits.c0} and ${bits.c1} bits a coefficient are not possible`);
  }
  if (bits.primeCount < 1 || bits.primeCount > parameters.dataPrimes.length) {
    throw parameterError(`${name}: replies cannot be lifted to ${bits.primeCount} data primes`);
  }
}

function costOf(message: CostMessage | undefined): Cost {
  return {
    requestBytes: Number(message?.requestBytes ?? 0n),
    replyBytes: Number(message?.replyBytes ?? 0n),
    serverSeconds: message?.serverSeconds ?? 0,
    heldBytes: Number(message?.heldBytes ?? 0n),
    keyBytes: Number(message?.keyBytes ?? 0n),
  };
}

function observedOf(message: ObservedMessage): ObservedError {
  return {
    rowCount: Number(message.rowCount),
    scoreError: message.scoreError,
    rmsScoreError: message.rmsScoreError,
    labelDisagreement: message.labelDisagreement,
    expectedLabelDisagreement: message.expectedLabelDisagreement,
  };
}
