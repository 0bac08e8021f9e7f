/** gRPC and gRPC-Web through Envoy: the same predictions, errors and streams. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Transport } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import { Client, SealserveError } from "../../src/index.ts";
import { content } from "./service.ts";

interface Content {
  readonly address: string;
  readonly origin: string;
  readonly digit: readonly number[];
  readonly digitLabel: number;
}

const { address, origin, digit, digitLabel } = content<Content>();
const baseUrl = `http://${address}`;
const transports: Readonly<Record<string, { readonly transport: Transport; readonly streamsRequests: boolean }>> = {
  gRPC: { transport: node.createGrpcTransport({ baseUrl }), streamsRequests: true },
  "gRPC-Web over HTTP/1.1": {
    transport: node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
    streamsRequests: false,
  },
  "gRPC-Web over HTTP/2": {
    transport: node.createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
    streamsRequests: false,
  },
  "gRPC-Web by fetch": { transport: web.createGrpcWebTransport({ baseUrl }), streamsRequests: false },
};

for (const [name, { transport, streamsRequests }] of Object.entries(transports)) {
  test(name, async () => {
    for (const model of ["digits", "digits-private"]) {
      const client = await Client.connect(transport, { model, streamsRequests });
      after(() => client.dispose());
      assert.deepEqual(await client.predict([digit, digit]), [digitLabel, digitLabel]);
      const found: unknown[] = [];
      for await (const { scored } of client.stream([digit, digit, digit])) {
        found.push(scored?.prediction);
      }
      assert.deepEqual(found, [digitLabel, digitLabel, digitLabel]);
    }
    await assert.rejects(Client.connect(transport, { model: "absent", streamsRequests }), (error) => {
      assert.ok(error instanceof SealserveError && error.is("modelNotFound"), String(error));
      assert.equal(error.failure.model, "absent");
      return true;
    });
    const client = await Client.connect(transport, { model: "digits", streamsRequests });
    after(() => client.dispose());
    await assert.rejects(client.predict([digit], { timeoutMs: 0.5 }), isDeadline);
    assert.deepEqual(await client.predict([digit], { timeoutMs: 5000.5 }), [digitLabel]);
  });
}

function isDeadline(error: unknown): boolean {
  return error instanceof SealserveError && error.is("deadline");
}

test("columns are streamed through it", async () => {
  const client = await Client.connect(transports.gRPC.transport, { model: "digits-private", layout: "column" });
  after(() => client.dispose());
  const rows = new Array(50).fill(digit);
  assert.deepEqual(await client.predict(rows), new Array(50).fill(digitLabel));
});

test("CORS is for named origins", async () => {
  const preflight = (from: string) =>
    fetch(`${baseUrl}/sealserve.v1.ModelService/GetModel`, {
      method: "OPTIONS",
      headers: {
        Origin: from,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-grpc-web,grpc-timeout",
      },
    });
  const named = await preflight(origin);
  assert.equal(named.headers.get("access-control-allow-origin"), origin);
  assert.match(named.headers.get("access-control-allow-headers") ?? "", /x-grpc-web/);
  const other = await preflight("https://evil.example.com");
  assert.equal(other.headers.get("access-control-allow-origin"), null);
});

test("nothing but the service's own methods is reached", async () => {
  for (const path of ["/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/sealserve.v2.X/Y"]) {
    const response = await fetch(`${baseUrl}${path}`, { method: "POST" });
    assert.equal(response.status, 404);
  }
});
