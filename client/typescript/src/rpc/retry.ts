/** Retries: which errors are temporary, and how long to wait before the next attempt. */

import { deadlineError, type SealserveError } from "../errors.ts";
import type { CallTime } from "./call-time.ts";

/** How often an item is sent again because the service has lost its key. */
export const MAX_LOSSES = 4;

// How long to try to reach a service that does not answer.
const UNANSWERED_MS = 1000;
const BREAK_MS = 50;
// The longest delay, unless the service asks for more.
const MAX_GROWN_MS = 2000;
const GROWTH = 1.5;
const MAX_EXPONENT = 30;
// A change is no overload: another attempt may succeed at once.
const FREE_CHANGES = 2;
const CHANGE_MS = 2;

/**
 * Run an operation, and again after each temporary failure.
 *
 * @throws SealserveError: a failure that is not temporary, or the last one if no time is left for
 * another attempt.
 */
export async function withRetries<T>(time: CallTime, operation: () => Promise<T>): Promise<T> {
  const began = performance.now();
  let last: SealserveError | undefined;
  for (let failures = 1; ; failures++) {
    try {
      return await operation();
    } catch (error) {
      const failure = error as SealserveError; // an operation throws no others
      if (failure.is("deadline") && last !== undefined) {
        throw givenUp(last);
      }
      const delay = delayMs(failure, failures);
      const isOver = failure.is("unavailable") && performance.now() + (delay ?? 0) >= began + UNANSWERED_MS;
      if (delay === undefined || isOver || delay >= time.leftMs) {
        throw givenUp(failure);
      }
      last = failure;
      await time.pause(delay);
    }
  }
}

/**
 * Return how long to wait after so many changes in a row that one item has met.
 *
 * From the third change on the delays grow, so that a service that never agrees with its own
 * descriptions is asked ever less often.
 */
export function changeDelayMs(changes: number): number {
  if (changes <= FREE_CHANGES) {
    return 0;
  }
  return Math.min(CHANGE_MS * grown(changes - FREE_CHANGES), MAX_GROWN_MS) * (0.5 + Math.random());
}

/**
 * Tell whether to go to the configuration that a replica names, though it was tried before.
 *
 * Replicas that take turns could always answer for the other configuration. The choices are those
 * of the Thue-Morse sequence, which keeps step with no order of turns.
 *
 * @param changes how many changes came before.
 */
export function goesOn(changes: number): boolean {
  let isEven = true;
  for (let bits = changes; bits > 0; bits >>>= 1) {
    isEven = (bits & 1) === 1 ? !isEven : isEven;
  }
  return isEven;
}

/** Return how long to wait after a failure; undefined if it is not temporary. */
function delayMs(failure: SealserveError, failures: number): number | undefined {
  if (failure.is("quotaExceeded", "draining", "keyStoreUnavailable", "resourceUnavailable")) {
    const least = Math.max(BREAK_MS, 1000 * failure.failure.retryDelaySeconds);
    return Math.max(least, Math.min(least * grown(failures), MAX_GROWN_MS)) * (1 + Math.random());
  }
  if (failure.is("unavailable", "itemTimeout", "idleTimeout")) {
    return Math.min(BREAK_MS * grown(failures), MAX_GROWN_MS) * (0.5 + Math.random());
  }
  return undefined;
}

function grown(failures: number): number {
  return GROWTH ** Math.min(failures - 1, MAX_EXPONENT);
}

/** A service refuses an item at once if its turn would come after the deadline. */
function givenUp(failure: SealserveError): SealserveError {
  return failure.is("quotaExceeded") && failure.failure.quota === "deadline" ? deadlineError() : failure;
}
