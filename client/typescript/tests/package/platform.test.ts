/** Platforms that lack something: errors are typed, and say what. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, loadSeal, type PlatformFeature, SealserveError, StoredKeys, startWorker } from "../../src/index.ts";
import { transportTo } from "../live/service.ts";

function lacks(feature: PlatformFeature): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SealserveError && error.is("unsupported"), String(error));
    assert.equal(error.failure.feature, feature);
    return true;
  };
}

/** Run an operation while a global is another one. */
async function withGlobal(name: string, value: unknown, operation: () => Promise<void>): Promise<void> {
  const kept = Object.getOwnPropertyDescriptor(globalThis, name);
  assert.ok(kept);
  Object.defineProperty(globalThis, name, { value, configurable: true });
  try {
    await operation();
  } finally {
    Object.defineProperty(globalThis, name, kept);
  }
}

/** An instance of WebAssembly whose compilation fails, as where exceptions or SIMD are missing. */
const OLD_WEB_ASSEMBLY = {
  instantiate: () => Promise.reject(new Error("invalid opcode")),
  RuntimeError: WebAssembly.RuntimeError,
};

// First, since a process loads SEAL once.
test("no WebAssembly, one that is too old, or no file of it", async () => {
  for (const value of [undefined, OLD_WEB_ASSEMBLY]) {
    await withGlobal("WebAssembly", value, () => assert.rejects(loadSeal(), lacks("webAssembly")));
  }
  await assert.rejects(loadSeal({ wasmUrl: new URL("file:///nowhere/seal.wasm") }), lacks("webAssembly"));
  await withGlobal("WebAssembly", undefined, () =>
    assert.rejects(Client.connect(transportTo("127.0.0.1:1"), { timeoutMs: 500 }), lacks("webAssembly")),
  );
});

test("no WebCrypto", async () => {
  for (const value of [undefined, { getRandomValues: () => {} }]) {
    await withGlobal("crypto", value, () => assert.rejects(loadSeal(), lacks("webCrypto")));
  }
  await loadSeal(); // what has failed is tried again
});

test("no storage, as in Node", async () => {
  await assert.rejects(StoredKeys.open(), lacks("indexedDB"));
});

test("no Workers", async () => {
  await assert.rejects(
    startWorker(() => new Worker("worker.js")),
    lacks("worker"),
  );
});

/** A Worker that does what a test tells it. */
class ScriptedWorker extends EventTarget {
  isTerminated = false;

  constructor(act: (worker: ScriptedWorker) => void) {
    super();
    setTimeout(() => act(this), 1);
  }

  terminate(): void {
    this.isTerminated = true;
  }
}

test("a Worker that is blocked, that cannot be loaded, or that says nothing", async () => {
  const blocked = new ScriptedWorker((worker) => worker.dispatchEvent(new Event("error", { cancelable: true })));
  await assert.rejects(
    startWorker(() => blocked as unknown as Worker),
    lacks("worker"),
  );
  assert.ok(blocked.isTerminated);
  const silent = new ScriptedWorker((worker) => worker.dispatchEvent(new MessageEvent("message", { data: "other" })));
  await assert.rejects(
    startWorker(() => silent as unknown as Worker, 20),
    lacks("worker"),
  );
  assert.ok(silent.isTerminated);
});
