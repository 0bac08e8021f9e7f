/** Workers: how a page starts one, and learns why it does not run. */

import { type SealserveError, unsupportedError } from "./errors.ts";

const READY = "sealserve: the Worker is ready";
const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Tell the page that started this Worker that its module runs. Call it once the Worker listens for
 * messages; the page does not see the call's own message.
 */
export function announceWorker(): void {
  self.postMessage(READY);
}

/**
 * Start a Worker, and wait until it calls {@link announceWorker}.
 *
 * @param make makes the Worker. A bundler finds its file only if `new Worker(new URL(...))` is
 * written there.
 * @param timeoutMs how long its files may take to load.
 * @throws SealserveError of kind "unsupported": the platform has no Workers, a policy forbids this
 * one, or its files cannot be loaded.
 */
export function startWorker(make: () => Worker, timeoutMs: number = DEFAULT_TIMEOUT_MS): Promise<Worker> {
  return new Promise((resolve, reject) => {
    let worker: Worker;
    try {
      worker = make();
    } catch (error) {
      reject(workerError(error));
      return;
    }
    const end = (error?: SealserveError) => {
      clearTimeout(timer);
      worker.removeEventListener("message", onMessage);
      worker.removeEventListener("error", onError);
      if (error === undefined) {
        resolve(worker);
      } else {
        worker.terminate();
        reject(error);
      }
    };
    const onMessage = (event: MessageEvent<unknown>) => {
      if (event.data === READY) {
        event.stopImmediatePropagation();
        end();
      }
    };
    const onError = (event: Event) => {
      event.preventDefault();
      end(workerError(event));
    };
    const timer = setTimeout(() => end(workerError("it did not say in time that it runs")), timeoutMs);
    worker.addEventListener("message", onMessage);
    worker.addEventListener("error", onError);
  });
}

function workerError(cause: unknown): SealserveError {
  return unsupportedError(
    "worker",
    "the Worker does not run: this platform needs Workers of modules, a policy that allows them (worker-src), and " +
      "access to the Worker's files",
    cause,
  );
}
