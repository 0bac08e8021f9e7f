/** Errors of the client: one class, with a discriminated union that says what went wrong. */

/** The first check that a ciphertext fails, in the order in which a service makes them. */
export type CiphertextFault = "length" | "header" | "parameters" | "form" | "coefficient" | "transparent";

/** The first check that a key fails, in the order in which a service makes them. */
export type KeyFault = "unseeded" | "length" | "digest" | "format" | "parameters" | "coefficient" | "degenerate";

/** What a platform may lack, or not allow. */
export type PlatformFeature = "webAssembly" | "webCrypto" | "indexedDB" | "worker";

/** Rows or arguments that the client refuses. Nothing that a refused row holds was encrypted. */
export type InputFailure =
  /** An argument, or a value that is of another type than its column. */
  | { readonly kind: "input" }
  /** Rows do not have as many values as the model has columns. */
  | { readonly kind: "featureCount"; readonly expected: number; readonly received: number }
  /** The names of an object are not those of the model's columns. */
  | { readonly kind: "featureName" }
  /** A feature is missing (NaN) or infinite. `rows` are the first such rows. */
  | { readonly kind: "notFinite"; readonly rows: readonly number[] }
  /** A feature is outside its range, or a row breaks a group of features. */
  | { readonly kind: "outOfRange"; readonly rows: readonly number[] }
  /** A feature is between two values of the grid that it is declared to be on. */
  | { readonly kind: "offGrid"; readonly rows: readonly number[] };

/** What the client finds by itself, besides what is wrong with rows. */
export type ClientFailure =
  /** The estimator of the model has no such method. */
  | { readonly kind: "noSuchMethod"; readonly method: string }
  /** The client has been disposed of. Nothing was sent. */
  | { readonly kind: "disposed" }
  /** A secret key cannot be used, stored or loaded. */
  | { readonly kind: "secretKey" }
  /** A description is malformed, unknown to this client, or below 128 bits of security. */
  | { readonly kind: "parameter" }
  /** The model requires a capability that this version lacks. Nothing was sent. */
  | { readonly kind: "requirement" }
  /** The model is not the one that the client was told to expect. */
  | { readonly kind: "unexpectedModel"; readonly expected: string; readonly received: string }
  /** A reply fails a check. The text is the same for every cause. */
  | { readonly kind: "reply" }
  /** The platform lacks a feature, or does not let this program use it. */
  | { readonly kind: "unsupported"; readonly feature: PlatformFeature }
  /** The browser's storage is full, and a secret key was not kept. */
  | { readonly kind: "storageFull" };

/** The call did not reach the service, or its answer did not come back. */
export type TransportFailure =
  | { readonly kind: "unavailable" }
  | { readonly kind: "deadline" }
  /** The caller's signal ended the call. `cause` is its reason. */
  | { readonly kind: "aborted" }
  | { readonly kind: "call"; readonly code: string };

/** The service refused. Each kind is a detail of `Error` in errors.proto. */
export type ServiceFailure =
  | { readonly kind: "staleConfig"; readonly currentConfigId: string }
  | { readonly kind: "modelNotFound"; readonly model: string }
  | { readonly kind: "keyNotFound"; readonly keyId: string }
  | { readonly kind: "parameterSetNotOffered"; readonly layout: string; readonly parameterSet: string }
  | { readonly kind: "malformedCiphertext"; readonly index: number; readonly reason: CiphertextFault }
  | { readonly kind: "inputMismatch"; readonly field: string; readonly expected: bigint; readonly received: bigint }
  | { readonly kind: "outOfSequence"; readonly expected: bigint; readonly received: bigint }
  | { readonly kind: "limitExceeded"; readonly limit: string; readonly maximum: bigint; readonly received: bigint }
  | { readonly kind: "quotaExceeded"; readonly quota: string; readonly retryDelaySeconds: number }
  | { readonly kind: "draining"; readonly retryDelaySeconds: number }
  | { readonly kind: "itemTimeout"; readonly waitedSeconds: number }
  | { readonly kind: "keyStoreUnavailable"; readonly retryDelaySeconds: number }
  | { readonly kind: "malformedKey"; readonly reason: KeyFault }
  | { readonly kind: "unauthenticated" }
  | { readonly kind: "permissionDenied"; readonly permission: string }
  | { readonly kind: "idleTimeout"; readonly waitedSeconds: number }
  | { readonly kind: "resourceUnavailable"; readonly resource: string; readonly retryDelaySeconds: number }
  | { readonly kind: "internal"; readonly requestId: string }
  /** A detail that this version does not know. */
  | { readonly kind: "service" };

/** What went wrong. Switch on `kind`. */
export type Failure = InputFailure | ClientFailure | TransportFailure | ServiceFailure;

/** The kinds of failure. */
export type FailureKind = Failure["kind"];

/** The only error that the methods of this package throw. */
export class SealserveError extends Error {
  override readonly name = "SealserveError";
  /** What went wrong, for programs. The message is for people. */
  readonly failure: Failure;

  constructor(failure: Failure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.failure = failure;
  }

  /** Tell whether the failure is of one of these kinds. */
  is<K extends FailureKind>(...kinds: readonly K[]): this is { readonly failure: Extract<Failure, { kind: K }> } {
    return (kinds as readonly FailureKind[]).includes(this.failure.kind);
  }
}

/** The error of a description that a client refuses. */
export function parameterError(message: string): SealserveError {
  return new SealserveError({ kind: "parameter" }, message);
}

/** The error of a model that needs a later version. */
export function requirementError(message: string): SealserveError {
  return new SealserveError({ kind: "requirement" }, message);
}

/** The error of a feature that the platform lacks or does not allow. */
export function unsupportedError(feature: PlatformFeature, message: string, cause?: unknown): SealserveError {
  return new SealserveError({ kind: "unsupported", feature }, message, cause === undefined ? {} : { cause });
}

/** The error of an argument, or of a value of another type than its column. */
export function inputError(message: string): SealserveError {
  return new SealserveError({ kind: "input" }, message);
}

/** The error of a reply that fails a check: the same one for every cause. */
export function replyError(): SealserveError {
  return new SealserveError(
    { kind: "reply" },
    "the reply is not a well-formed answer of this model, and nothing of it was kept: make sure that you trust the " +
      "service",
  );
}

/** The error of a call that has no time left. */
export function deadlineError(): SealserveError {
  return new SealserveError({ kind: "deadline" }, "the answer did not come within timeoutMs");
}
