/** Hostile services: whatever they answer, a client throws one of its own errors, in time. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, SealserveError } from "../../src/index.ts";
import { content, transportTo } from "./service.ts";

interface Case {
  readonly name: string;
  readonly kinds: readonly string[];
  readonly address: string;
  /** Whether the description is right, and predictions are not. */
  readonly isDescribed: boolean;
}

const TIMEOUT_MS = 1000;
const MOST_MS = 30_000; // nothing takes so long unless it hangs

for (const { name, kinds, address, isDescribed } of content<{ cases: readonly Case[] }>().cases) {
  test(name, async () => {
    const transport = transportTo(address);
    const connect = () => Client.connect(transport, { model: "line", layout: "row", timeoutMs: TIMEOUT_MS });
    const began = performance.now();
    const isExpected = (error: unknown) => {
      assert.ok(error instanceof SealserveError, String(error));
      assert.ok(kinds.includes(error.failure.kind), `${error.failure.kind}: ${error.message}`);
      assert.doesNotMatch(error.message, /[^ -~]/);
      return true;
    };
    if (isDescribed) {
      const client = await connect();
      await assert.rejects(client.predict([[0.25, 0.5]]), isExpected);
      client.dispose();
    } else {
      await assert.rejects(connect(), isExpected);
    }
    assert.ok(performance.now() - began < MOST_MS);
  });
}
