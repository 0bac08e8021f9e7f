/**
 * Encrypted inference, in Node and in browsers: a client encrypts features with Microsoft SEAL, a
 * service scores a model on the ciphertext, and the client decrypts the answer.
 *
 * @packageDocumentation
 */

export { type CallOptions, Client, type ClientOptions, type ScoredRow, type StreamOptions } from "./client.ts";
export type {
  CiphertextFault,
  ClientFailure,
  Failure,
  FailureKind,
  InputFailure,
  KeyFault,
  PlatformFeature,
  ServiceFailure,
  TransportFailure,
} from "./errors.ts";
export { SealserveError } from "./errors.ts";
export type { EncryptionParameters, Ring, SchemeName } from "./he/parameters.ts";
export type { ReplyBits } from "./he/reply-bits.ts";
export { loadSeal, type SealOptions } from "./he/seal.ts";
export { type PublicKey, SecretKey } from "./he/secret-key.ts";
export type { LayoutChoice } from "./offer-choice.ts";
export type { Column, ColumnKind } from "./protocol/column.ts";
export type { InputGrid } from "./protocol/grid.ts";
export type {
  Cost,
  KeyKindName,
  LayoutName,
  Limits,
  Model,
  ObservedError,
  Offer,
  Verdict,
} from "./protocol/model.ts";
export type { Curve, Label, LabelType, Link, Output, Pairwise, Prediction, Task } from "./protocol/output.ts";
export { pinOf } from "./protocol/pin.ts";
export type { Cell, Row, Rows, Schema } from "./protocol/schema.ts";
export { StoredKeys } from "./stored-keys.ts";
export type { Streamed } from "./stream.ts";
export { announceWorker, startWorker } from "./worker.ts";
