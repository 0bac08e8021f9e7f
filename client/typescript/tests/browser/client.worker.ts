/** A Worker that predicts. */

import { announceWorker } from "../../src/worker.ts";
import { done, type Job } from "./client.ts";

self.onmessage = async ({ data }: MessageEvent<Job>) => {
  try {
    self.postMessage({ done: await done(data) });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
announceWorker();
