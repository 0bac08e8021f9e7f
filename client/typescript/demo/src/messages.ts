/** Messages between the page and its Worker. */

import type { FailureKind, PlatformFeature, Row } from "../../src/index.ts";

/** How the weights of a model are served; each way by a service of its own. */
export const MODES = ["open", "private"] as const;
export type Mode = (typeof MODES)[number];

/** The models, by the names that the services know. */
export type ModelName = "digits" | "loans";

/** A row to predict. */
export interface Question {
  readonly id: number;
  readonly mode: Mode;
  readonly model: ModelName;
  readonly row: Row;
}

/** Times of the steps of a prediction, in milliseconds. */
export interface Times {
  readonly encrypt: number;
  /** To the service and back, its own work included. */
  readonly away: number;
  readonly decrypt: number;
}

/** A prediction, and what went over the wire for it. */
export interface Answer {
  readonly label: string;
  /** One for each label, or a single one that decides between two. */
  readonly scores: readonly number[];
  readonly labels: readonly string[];
  readonly probabilities: readonly number[];
  /** The numbers that were encrypted. */
  readonly featureCount: number;
  /** The whole body of the request, as it left. */
  readonly sent: Uint8Array;
  readonly receivedBytes: number;
  /** The public key that the service has got once; 0 if it needs none. */
  readonly keyBytes: number;
  readonly times: Times;
}

/** Why there is no prediction. */
export interface Trouble {
  /** A kind of the SDK's, or that the model under this name is not the one that the page is for. */
  readonly kind: FailureKind | "wrongModel" | "unknown";
  /** What the platform lacks, if it lacks something. */
  readonly feature?: PlatformFeature;
}

/** What becomes of a question. */
export type Reply = { readonly id: number } & ({ readonly answer: Answer } | { readonly trouble: Trouble });
