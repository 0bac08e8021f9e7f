/**
 * Asks a service for predictions of random rows, and prints how many seconds a whole call takes.
 *
 * `node benchmarks/times.ts ADDRESS ROWS CALLS`; benchmarks/clients.py runs it.
 */

import { createGrpcTransport } from "@connectrpc/connect-node";
import { Client } from "../src/index.ts";

const [address, rowCount, callCount] = process.argv.slice(2);
const client = await Client.connect(createGrpcTransport({ baseUrl: `http://${address}` }));
const rows = Array.from({ length: Number(rowCount) }, () =>
  Float64Array.from(client.model.grid.minimum, () => Math.floor(256 * Math.random()) / 255),
);
for (let call = 0; call <= Number(callCount); call++) {
  const began = performance.now();
  await client.scored(rows);
  if (call > 0) {
    console.log((performance.now() - began) / 1000); // the first one registers a key
  }
}
client.dispose();
