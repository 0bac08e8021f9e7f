/** What tests call in a page of a browser. */

import { loadSeal, type Ring, SealserveError, SecretKey, StoredKeys, startWorker } from "../../src/index.ts";
import { exportSecretKey } from "../../src/secret-key-access.ts";
import { type Done, done, type Job } from "./client.ts";

/** A job as the test has it: rows are in base64. */
export type SentJob = Omit<Job, "rows"> & { readonly rows: string };

const RING: Ring = { polyModulusDegree: 2048, primes: [0x3ffffffffed001n] };

function received(job: SentJob): Job {
  return { ...job, rows: Uint8Array.from(atob(job.rows), (character) => character.charCodeAt(0)).buffer };
}

/** Return the kind and the feature of the error of an operation; "" if there is none. */
async function failure(operation: () => Promise<unknown>): Promise<string> {
  try {
    await operation();
    return "";
  } catch (error) {
    if (!(error instanceof SealserveError)) {
      return String(error);
    }
    return error.is("unsupported") ? error.failure.feature : error.failure.kind;
  }
}

/** The id of the public key that is kept in a database, and of the secret key. */
async function keptKey(name: string): Promise<{ readonly id: string; readonly secret: string }> {
  using keys = await StoredKeys.open(name);
  using key = await keys.keyOf(RING);
  const { id } = await key.publicKey;
  return { id, secret: String(exportSecretKey(key)) };
}

const actions = {
  loadSeal: () => failure(() => loadSeal()),
  startWorker: (url: string) => failure(() => startWorker(() => new Worker(url, { type: "module" }))),
  openKeys: (name: string) => failure(() => StoredKeys.open(name)),
  keptKey,
  keepKey: (name: string) => failure(() => keptKey(name)),
  makeKey: () => failure(() => SecretKey.generate(RING)),
  predict: (job: SentJob): Promise<Done> => done(received(job)),
  async predictInWorker(job: SentJob): Promise<Done> {
    const worker = await startWorker(() => new Worker("/client.worker.js", { type: "module" }));
    try {
      return await new Promise<Done>((resolve, reject) => {
        worker.onerror = (event) => reject(new Error(event.message));
        worker.onmessage = ({ data }) => ("done" in data ? resolve(data.done) : reject(new Error(data.error)));
        worker.postMessage(received(job));
      });
    } finally {
      worker.terminate();
    }
  },
  async clearKeys(name: string): Promise<void> {
    using keys = await StoredKeys.open(name);
    await keys.clear();
  },
};

/** What a page can do for a test. */
export type Actions = typeof actions;

declare global {
  var sealserve: Actions;
}
globalThis.sealserve = actions;
