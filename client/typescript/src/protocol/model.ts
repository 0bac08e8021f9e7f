/** Models as clients see them: descriptions that have been checked. */

import { requirementError } from "../errors.ts";
import type { EncryptionParameters } from "../he/parameters.ts";
import { packedPairBytes, type ReplyBits } from "../he/reply-bits.ts";
import type { Program } from "../steps/program.ts";
import type { InputGrid } from "./grid.ts";
import type { Output } from "./output.ts";
import type { Schema } from "./schema.ts";

/** The capabilities of this version that a model may require. See Model.requires in model.proto. */
const CAPABILITIES: readonly string[] = ["steps"];
// In an error text, as a service may publish any.
const NAMED_REQUIREMENTS = 3;
const NAME_CHARACTERS = 40;

/** How rows, features and scores lie in ciphertexts. `ei-slots` is for other clients. */
export type LayoutName = "row" | "column" | "ei-slots";

/** The operator's word on whether predictions are the plaintext model's: from best to worst. */
export type Verdict = "ok" | "unchecked" | "warn" | "refuse";

/** The kind of key that must be registered. */
export type KeyKindName = "evaluationKeys" | "publicEncryptionKey";

/** The errors that the operator's rows showed. See ObservedError in model.proto. */
export interface ObservedError {
  readonly rowCount: number;
  readonly scoreError: number;
  readonly rmsScoreError: number;
  readonly labelDisagreement: number;
  readonly expectedLabelDisagreement: number;
}

/** The cost of a full item. See Cost in model.proto. */
export interface Cost {
  readonly requestBytes: number;
  readonly replyBytes: number;
  readonly serverSeconds: number;
  readonly heldBytes: number;
  readonly keyBytes: number;
}

/** One way to encrypt for a model. See Offer in model.proto. */
export interface Offer {
  readonly layout: LayoutName;
  readonly parameters: EncryptionParameters;
  /** Whether replies hide the weights. */
  readonly privateWeights: boolean;
  readonly rowsPerItem: number;
  readonly classesPerPolynomial: number;
  readonly ciphertextsPerItem: number;
  /** An integer score divided by it is a score. */
  readonly scoreScale: number;
  /** One a score; empty for CKKS. */
  readonly scoreCenters: readonly bigint[];
  /** One a score; empty for CKKS. */
  readonly scoreRadii: readonly bigint[];
  /** The largest error of a score, for every row within the range. */
  readonly scoreErrorBound: number;
  readonly inputRoundingErrorBound: number;
  readonly weightRoundingErrorBound: number;
  readonly expectedScoreError: number;
  /** Undefined without rows of the operator's. */
  readonly observedError: ObservedError | undefined;
  readonly cost: Cost;
  /** Undefined if no key is needed. */
  readonly requiredKey: KeyKindName | undefined;
  /** Undefined for CKKS, which is not judged. */
  readonly verdict: Verdict | undefined;
  /** How replies are packed; undefined if they are not. */
  readonly replyBits: ReplyBits | undefined;
  /** Whether the service takes packed ciphertexts. */
  readonly takesPackedCiphertexts: boolean;
}

/** What the server accepts from one client. See Limits in model.proto. */
export interface Limits {
  readonly maxMessageBytes: number;
  readonly maxOpenItems: number;
  readonly itemTimeoutSeconds: number;
  readonly windowBytes: number;
  readonly maxKeyBytes: number;
  readonly suggestedConnections: number;
  readonly idleTimeoutSeconds: number;
}

/** The public face of a model: all that a client needs, and nothing of its weights. */
export interface Model {
  readonly name: string;
  /** A digest of the weights, for people. */
  readonly version: string;
  /** A digest of all that a client's numbers depend on. */
  readonly configId: string;
  /** The columns of the rows that a user hands in. */
  readonly schema: Schema;
  /** The grid of the features that are encrypted. */
  readonly grid: InputGrid;
  readonly output: Output;
  /** In the service's order of preference. */
  readonly offers: readonly Offer[];
  readonly limits: Limits;
  /** The capabilities that a client needs. */
  readonly requires: readonly string[];
  /** The SHA-256 of the serialized steps; "" if the columns are the features. */
  readonly stepsId: string;
  readonly stepsBytes: number;
  /** What computes the features from the columns; undefined if there is nothing to compute. */
  readonly steps: Program | undefined;
}

/**
 * Check that this version has every capability that a model requires.
 *
 * @throws SealserveError of kind "requirement": it does not.
 */
export function checkRequirements(model: Model): void {
  const unknown = model.requires.filter((name) => !CAPABILITIES.includes(name));
  if (unknown.length > 0) {
    const named = unknown.slice(0, NAMED_REQUIREMENTS).map((name) => `'${name.slice(0, NAME_CHARACTERS)}'`);
    throw requirementError(
      `model '${model.name}' requires ${named.join(", ")}, which this version lacks: update sealserve`,
    );
  }
}

/** Return the most bytes of a polynomial pair of a reply. */
export function maxPairBytes(offer: Offer): number {
  const { polyModulusDegree, dataPrimes } = offer.parameters;
  if (offer.replyBits === undefined) {
    return 16 * polyModulusDegree * dataPrimes.length;
  }
  return packedPairBytes(offer.replyBits, offer.rowsPerItem * offer.classesPerPolynomial, polyModulusDegree);
}
