/** A client in a browser: what a page, or a Worker, does for the live tests. */

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Client, type LayoutChoice, type Prediction, StoredKeys } from "../../src/index.ts";

/** Rows of a model to predict. */
export interface Job {
  readonly baseUrl: string;
  readonly model: string;
  readonly layout: LayoutChoice;
  readonly featureCount: number;
  /** float64, row after row. */
  readonly rows: ArrayBuffer;
  /** How many rows a call has; with "stream", rows come one by one. */
  readonly rowsPerCall: number | "stream";
  /** How often the rows are predicted. */
  readonly rounds?: number;
  /** The database in which keys are kept; by default they are not. */
  readonly stored?: string;
}

/** What came out. */
export interface Done {
  /** Of the last round. */
  readonly predictions: readonly Prediction[];
  readonly layout: string;
  /** Whether the offer's weights are private. */
  readonly isPrivate: boolean;
  /** How long each call took. */
  readonly milliseconds: readonly number[];
}

/** Predict the rows of a job. */
export async function done(job: Job): Promise<Done> {
  const storedKeys = job.stored === undefined ? undefined : await StoredKeys.open(job.stored);
  const options = { model: job.model, layout: job.layout, ...(storedKeys && { storedKeys }) };
  const client = await Client.connect(createGrpcWebTransport({ baseUrl: job.baseUrl }), options);
  const values = new Float64Array(job.rows);
  const count = values.length / job.featureCount;
  const rows = Array.from({ length: count }, (_, k) =>
    values.subarray(k * job.featureCount, (k + 1) * job.featureCount),
  );
  const milliseconds: number[] = [];
  let predictions: Prediction[] = [];
  try {
    for (let round = 0; round < (job.rounds ?? 1); round++) {
      predictions = [];
      let began = performance.now();
      const ended = (found: readonly Prediction[]) => {
        predictions.push(...found);
        milliseconds.push(performance.now() - began);
        began = performance.now();
      };
      if (job.rowsPerCall === "stream") {
        for await (const { scored, error } of client.stream(rows)) {
          if (scored === undefined) {
            throw error;
          }
          ended([scored.prediction]);
        }
      } else {
        for (let first = 0; first < count; first += job.rowsPerCall) {
          ended(await client.predict(rows.slice(first, first + job.rowsPerCall)));
        }
      }
    }
    const { layout, privateWeights } = client.offer;
    return { predictions, layout, isPrivate: privateWeights, milliseconds };
  } finally {
    client.dispose();
    storedKeys?.[Symbol.dispose]();
  }
}
