/**
 * CallTime: how long a method of a client may still take, for all its calls and pauses together.
 */

import { deadlineError, SealserveError } from "../errors.ts";

// The longest delay of a timer, which holds an int32: about 24 days.
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The time from the last progress on, and the caller's signal. */
export class CallTime {
  readonly signal: AbortSignal | undefined;
  readonly #timeoutMs: number;
  // Shared by all times that are linked.
  readonly #progress: { at: number };

  private constructor(timeoutMs: number, progress: { at: number }, signal: AbortSignal | undefined) {
    this.#timeoutMs = timeoutMs;
    this.#progress = progress;
    this.signal = signal;
  }

  /** Begin now. @param timeoutMs Infinity for no deadline. */
  static of(timeoutMs: number, signal?: AbortSignal): CallTime {
    return new CallTime(timeoutMs, { at: performance.now() }, signal);
  }

  /** Return the same time, which another signal ends, too. */
  linked(signal: AbortSignal): CallTime {
    const either = this.signal === undefined ? signal : AbortSignal.any([this.signal, signal]);
    return new CallTime(this.#timeoutMs, this.#progress, either);
  }

  /** Let the time begin anew: one of several items has ended. */
  progressed(): void {
    this.#progress.at = performance.now();
  }

  /** The time that is left. */
  get leftMs(): number {
    return this.#progress.at + this.#timeoutMs - performance.now();
  }

  /**
   * What a call of connect takes. Its time-out is a whole number: gRPC's servers end the connection
   * of a call that has another one.
   *
   * @throws SealserveError of kind "deadline" or "aborted": no time is left.
   */
  options(): { readonly timeoutMs?: number; readonly signal?: AbortSignal } {
    this.check();
    const { leftMs, signal } = this;
    return {
      ...(leftMs <= MAX_TIMER_MS ? { timeoutMs: Math.max(1, Math.ceil(leftMs)) } : {}),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  /** @throws SealserveError of kind "deadline" or "aborted": no time is left. */
  check(): void {
    if (this.signal?.aborted) {
      throw new SealserveError({ kind: "aborted" }, "the call was aborted by its signal", {
        cause: this.signal.reason,
      });
    }
    if (this.leftMs <= 0) {
      throw deadlineError();
    }
  }

  /** Wait. The signal ends the wait, and what is done next checks it. */
  async pause(ms: number): Promise<void> {
    const { signal } = this;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, Math.min(ms, MAX_TIMER_MS));
      signal?.addEventListener("abort", end);
    });
    this.check();
  }
}
