/**
 * The service of a live test: tests/integration/test_typescript.py runs it, and says where it is.
 */

import { readFileSync } from "node:fs";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

/** Return what there is. */
export function content<T>(): T {
  const path = process.env.SEALSERVE_LIVE;
  if (path === undefined) {
    throw new Error("live tests are run by pytest: tests/integration/test_typescript.py");
  }
  return JSON.parse(readFileSync(path, "utf8"));
}

/** Return a transport of gRPC. */
export function transportTo(address: string): Transport {
  return createGrpcTransport({ baseUrl: `http://${address}` });
}
