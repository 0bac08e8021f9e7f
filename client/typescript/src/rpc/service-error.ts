/** Errors of a service and failed calls, as errors of this package. */

import { Code, ConnectError } from "@connectrpc/connect";
import { type CiphertextFault, deadlineError, type KeyFault, SealserveError, type ServiceFailure } from "../errors.ts";
import {
  MalformedCiphertext_Reason as CiphertextReason,
  type Error as ErrorMessage,
  ErrorSchema,
  MalformedKey_Reason as KeyReason,
} from "../generated/sealserve/v1/errors_pb.ts";
import { secondsOf } from "../protocol/description.ts";
import { layoutName } from "../protocol/offer-description.ts";
import { MAX_MESSAGE_CHARACTERS, printable } from "../text.ts";

// The text with which gRPC's own server refuses a call because it has too many.
const TOO_MANY_CALLS = "Concurrent RPC limit exceeded";
const REFUSED_SECONDS = 1;

const CIPHERTEXT_FAULTS: ReadonlyMap<CiphertextReason, CiphertextFault> = new Map([
  [CiphertextReason.LENGTH, "length"],
  [CiphertextReason.HEADER, "header"],
  [CiphertextReason.PARAMETERS, "parameters"],
  [CiphertextReason.FORM, "form"],
  [CiphertextReason.COEFFICIENT, "coefficient"],
  [CiphertextReason.TRANSPARENT, "transparent"],
]);
const KEY_FAULTS: ReadonlyMap<KeyReason, KeyFault> = new Map([
  [KeyReason.UNSEEDED, "unseeded"],
  [KeyReason.LENGTH, "length"],
  [KeyReason.DIGEST, "digest"],
  [KeyReason.FORMAT, "format"],
  [KeyReason.PARAMETERS, "parameters"],
  [KeyReason.COEFFICIENT, "coefficient"],
  [KeyReason.DEGENERATE, "degenerate"],
]);

/**
 * Convert the error of an item or a call. Its texts are made printable, because errors are shown.
 */
export function serviceError(message: ErrorMessage): SealserveError {
  const failure = failureOf(message);
  return new SealserveError(failure, messageOf(failure, message.message));
}

/**
 * Return the error that a failed call carries, or that of its status.
 *
 * @param error what the call has thrown.
 * @param signal the caller's.
 */
export function callError(error: unknown, signal: AbortSignal | undefined): SealserveError {
  if (error instanceof SealserveError) {
    return error;
  }
  if (signal?.aborted) {
    return new SealserveError({ kind: "aborted" }, "the call was aborted by its signal", { cause: signal.reason });
  }
  const failed = ConnectError.from(error);
  const [detail] = failed.findDetails(ErrorSchema);
  if (detail !== undefined) {
    return serviceError(detail);
  }
  const text = printable(failed.rawMessage, MAX_MESSAGE_CHARACTERS);
  switch (failed.code) {
    case Code.Unavailable:
    case Code.Canceled: // a server that begins to shut down ends calls with it
    case Code.Aborted: // connect's code for a stream that broke
      return new SealserveError({ kind: "unavailable" }, `the service cannot be reached: ${text}`);
    case Code.Unauthenticated: // without a detail, which a stranger does not get
      return serviceFailure({ kind: "unauthenticated" });
    case Code.DeadlineExceeded:
      return deadlineError();
    case Code.ResourceExhausted:
      if (failed.rawMessage.includes(TOO_MANY_CALLS)) {
        return serviceFailure({
          kind: "quotaExceeded",
          quota: "concurrent_calls",
          retryDelaySeconds: REFUSED_SECONDS,
        });
      }
      break;
    default:
  }
  const code = Code[failed.code] ?? String(failed.code);
  return new SealserveError({ kind: "call", code }, `the call failed with ${code}: ${text}`);
}

function serviceFailure(failure: ServiceFailure): SealserveError {
  return new SealserveError(failure, messageOf(failure, ""));
}

function failureOf({ detail }: ErrorMessage): ServiceFailure {
  switch (detail.case) {
    case "staleConfig":
      return { kind: detail.case, currentConfigId: printable(detail.value.currentConfigId) };
    case "modelNotFound":
      return { kind: detail.case, model: printable(detail.value.model) };
    case "keyNotFound":
      return { kind: detail.case, keyId: printable(detail.value.keyId) };
    case "parameterSetNotOffered": {
      const layout = layoutName(detail.value.layout) ?? "";
      return { kind: detail.case, layout, parameterSet: printable(detail.value.parameterSet) };
    }
    case "malformedCiphertext": {
      const { index, reason } = detail.value;
      return { kind: detail.case, index, reason: CIPHERTEXT_FAULTS.get(reason) ?? "transparent" };
    }
    case "inputMismatch": {
      const { field, expected, received } = detail.value;
      return { kind: detail.case, field: printable(field), expected, received };
    }
    case "outOfSequence":
      return { kind: detail.case, expected: detail.value.expected, received: detail.value.received };
    case "limitExceeded": {
      const { limit, maximum, received } = detail.value;
      return { kind: detail.case, limit: printable(limit), maximum, received };
    }
    case "quotaExceeded": {
      const { quota, retryDelay } = detail.value;
      return { kind: detail.case, quota: printable(quota), retryDelaySeconds: secondsOf(retryDelay) };
    }
    case "draining":
    case "keyStoreUnavailable":
      return { kind: detail.case, retryDelaySeconds: secondsOf(detail.value.retryDelay) };
    case "resourceUnavailable": {
      const { resource, retryDelay } = detail.value;
      return { kind: detail.case, resource: printable(resource), retryDelaySeconds: secondsOf(retryDelay) };
    }
    case "itemTimeout":
    case "idleTimeout":
      return { kind: detail.case, waitedSeconds: secondsOf(detail.value.waited) };
    case "malformedKey":
      return { kind: detail.case, reason: KEY_FAULTS.get(detail.value.reason) ?? "degenerate" };
    case "unauthenticated":
      return { kind: detail.case };
    case "permissionDenied":
      return { kind: detail.case, permission: printable(detail.value.permission) };
    case "internal":
      return { kind: detail.case, requestId: printable(detail.value.requestId) };
    default:
      return { kind: "service" };
  }
}

/** Say what is wrong and what to do. Only an unknown detail is shown in the service's own words. */
function messageOf(failure: ServiceFailure, text: string): string {
  switch (failure.kind) {
    case "staleConfig":
      return "the model's configuration has changed: get the model again, encrypt the rows again and resend";
    case "modelNotFound":
      return failure.model === ""
        ? "name a model: the service has several models, or none"
        : `no model named '${failure.model}' is served`;
    case "keyNotFound":
      return "the key is not registered: register it and resend";
    case "parameterSetNotOffered":
      return (
        `the model is not offered in layout '${failure.layout}' with parameter set '${failure.parameterSet}': choose ` +
        "one of its offers"
      );
    case "malformedCiphertext":
      return `ciphertext ${failure.index} is malformed (${failure.reason}): the same bytes will fail again`;
    case "inputMismatch":
      return `${failure.field} is ${failure.received}, expected ${failure.expected}: correct the request`;
    case "outOfSequence":
      return `message out of sequence: expected ${failure.expected}, received ${failure.received}`;
    case "limitExceeded":
      return `${failure.limit} is ${failure.maximum}, the request has ${failure.received}: send less at once`;
    case "quotaExceeded":
      return `quota ${failure.quota} is used up: retry in ${failure.retryDelaySeconds} s`;
    case "draining":
      return `the server is stopping: retry in ${failure.retryDelaySeconds} s`;
    case "itemTimeout":
      return `the rest of the request did not come within ${failure.waitedSeconds} s: send it again`;
    case "keyStoreUnavailable":
      return `the key store does not answer: retry in ${failure.retryDelaySeconds} s`;
    case "resourceUnavailable":
      return `the server has no more ${failure.resource}: retry in ${failure.retryDelaySeconds} s`;
    case "malformedKey":
      return `the key is malformed (${failure.reason}): the same bytes will fail again`;
    case "unauthenticated":
      return "the call has no valid credentials: send a valid token or client certificate";
    case "permissionDenied":
      return `the tenant lacks the permission '${failure.permission}': ask the operator for it`;
    case "idleTimeout":
      return `nothing came on the stream for ${failure.waitedSeconds} s`;
    case "internal":
      return `the server failed: report request id ${failure.requestId}; its log has the cause under this id`;
    case "service":
      return printable(text, MAX_MESSAGE_CHARACTERS) || "the service refused, and does not say why";
  }
}
