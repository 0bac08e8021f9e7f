/** The life of a client: options, errors, changes of the service, and its end. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  Client,
  type ClientOptions,
  type FailureKind,
  loadSeal,
  pinOf,
  type Row,
  SealserveError,
  SecretKey,
  type StoredKeys,
} from "../../src/index.ts";
import { content, transportTo } from "./service.ts";

interface Content {
  readonly address: string;
  readonly control: string;
  readonly digit: readonly number[];
  readonly digitLabel: number;
  readonly pin: string;
  readonly stepsPin: string;
  readonly table: readonly Record<string, number | string | boolean | null>[];
  readonly tableScores: readonly (readonly number[])[];
}

const { address, control, digit, digitLabel, pin, stepsPin, table, tableScores } = content<Content>();

async function connected(options: ClientOptions): Promise<Client> {
  const client = await Client.connect(transportTo(address), options);
  after(() => client.dispose());
  return client;
}

/** Let the service's process do something. */
async function act(name: string): Promise<void> {
  const response = await fetch(new URL(name, control), { method: "POST" });
  assert.equal(response.status, 204);
}

function isOf(...kinds: FailureKind[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SealserveError, String(error));
    assert.ok(kinds.includes(error.failure.kind), `${error.failure.kind}: ${error.message}`);
    return true;
  };
}

test("rows are arrays, typed arrays and buffers of them", async () => {
  const client = await connected({ model: "digits" });
  const rows: Row[] = [digit, Float64Array.from(digit), Float32Array.from(digit)];
  assert.deepEqual(await client.predict(rows), [digitLabel, digitLabel, digitLabel]);
  assert.deepEqual(await client.predict([]), []);
  assert.deepEqual(client.features([digit]), [Float64Array.from(digit)]);
  const [{ prediction, scores, probabilities }] = await client.scored([digit]);
  assert.equal(prediction, digitLabel);
  assert.equal(scores.length, 10);
  assert.equal(probabilities?.length, 10);
});

test("rows that a model refuses fail after the answer, or in their place in a stream", async () => {
  const client = await connected({ model: "digits", layout: "row" });
  const outside = digit.with(3, 7);
  const missing = digit.with(5, Number.NaN);
  await assert.rejects(client.predict([digit, outside]), (error) => {
    assert.ok(error instanceof SealserveError && error.is("outOfRange"));
    assert.deepEqual(error.failure.rows, [1]);
    assert.match(error.message, /feature 3 is outside the model's range 0\.\.1/);
    assert.doesNotMatch(error.message, /\b7\b/, "no value is told");
    return true;
  });
  await assert.rejects(client.predict([missing]), isOf("notFinite"));
  await assert.rejects(client.predict([digit.slice(1)]), isOf("featureCount"));
  await assert.rejects(client.predict([["a", ...digit.slice(1)]]), isOf("input"));
  await assert.rejects(client.predict([{ a: 1 }]), isOf("featureName"));
  const found: (FailureKind | "scored")[] = [];
  for await (const { error } of client.stream([digit, outside, digit, missing])) {
    found.push(error?.failure.kind ?? "scored");
  }
  assert.deepEqual(found, ["scored", "outOfRange", "scored", "notFinite"]);
  const clipping = await connected({ model: "digits", clip: true });
  assert.deepEqual(await clipping.predict([digit]), [digitLabel]);
  assert.equal((await clipping.predict([outside])).length, 1);
});

test("published steps: objects by column name", async () => {
  const client = await connected({ model: "steps" });
  const scored = await client.scored(table);
  scored.forEach(({ scores }, k) => {
    scores.forEach((score, j) => {
      assert.ok(Math.abs(score - tableScores[k][j]) <= client.offer.scoreErrorBound + 1e-9);
    });
  });
  await assert.rejects(client.predict([{ ...table[0], city: "Bern" }]), isOf("input"));
  await assert.rejects(client.predict([{ ...table[0], age: 200 }]), isOf("outOfRange"));
  await assert.rejects(client.predict([{ ...table[0], more: 1 }]), isOf("featureName"));
  await assert.rejects(client.predictProba(table), isOf("noSuchMethod"));
  await assert.rejects(client.decisionFunction(table), isOf("noSuchMethod"));
});

test("an expected model", async () => {
  const client = await connected({ model: "digits", expect: pin });
  assert.equal(await pinOf(client.model), pin);
  assert.equal(await pinOf((await connected({ model: "steps", expect: stepsPin })).model), stepsPin);
  await assert.rejects(client.predict([digit.with(0, 9)]), isOf("outOfRange"));
  await assert.rejects(connected({ model: "digits", expect: pin.replace(/^./, "x") }), isOf("input"));
  await assert.rejects(connected({ model: "digits", expect: stepsPin }), isOf("unexpectedModel"));
});

test("errors are typed", async () => {
  await assert.rejects(connected({ model: "absent" }), isOf("modelNotFound"));
  await assert.rejects(connected({}), isOf("modelNotFound"));
  await assert.rejects(Client.connect(transportTo("127.0.0.1:1"), { timeoutMs: 1500 }), isOf("unavailable"));
  await assert.rejects(connected({ model: "digits", timeoutMs: 0 }), isOf("input"));
  const client = await connected({ model: "digits" });
  assert.throws(() => client.stream([], { rowsPerItem: 0 }), isOf("input"));
  const { parameters } = (await connected({ model: "changing" })).offer;
  const foreign = await SecretKey.generate(parameters);
  await assert.rejects(connected({ model: "digits", secretKey: foreign, layout: "row" }), isOf("secretKey"));
  assert.throws(() => JSON.stringify({ foreign }), isOf("secretKey"));
  const both = { secretKey: foreign, storedKeys: {} as StoredKeys };
  await assert.rejects(connected({ model: "digits", ...both }), isOf("input"));
});

test("deadlines may be fractions of a millisecond, and end no other call", async () => {
  const transport = transportTo(address);
  const client = await Client.connect(transport, { model: "digits" });
  after(() => client.dispose());
  await assert.rejects(client.predict([digit], { timeoutMs: 0.5 }), isOf("deadline"));
  for (const timeoutMs of [5000.25, 1234.5678, Number.POSITIVE_INFINITY]) {
    assert.deepEqual(await client.predict([digit], { timeoutMs }), [digitLabel]);
  }
});

test("a signal ends calls", async () => {
  const client = await connected({ model: "digits", layout: "row" });
  await assert.rejects(client.predict([digit], { signal: AbortSignal.abort("enough") }), (error) => {
    assert.ok(error instanceof SealserveError && error.is("aborted"));
    assert.equal(error.cause, "enough");
    return true;
  });
  const controller = new AbortController();
  const many = client.predict(new Array<Row>(600).fill(digit), { signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(many, isOf("aborted"));
  const ended = new AbortController();
  async function* endless() {
    for (;;) {
      yield digit;
    }
  }
  let count = 0;
  await assert.rejects(async () => {
    for await (const _ of client.stream(endless(), { signal: ended.signal })) {
      if (++count === 5) {
        ended.abort();
      }
    }
  }, isOf("aborted"));
  assert.deepEqual(await client.predict([digit]), [digitLabel], "the client still works");
});

test("a stream ends with its caller, and hands on what its source throws", async () => {
  const client = await connected({ model: "digits", layout: "row" });
  let isClosed = false;
  async function* source() {
    try {
      for (;;) {
        yield digit;
      }
    } finally {
      isClosed = true;
    }
  }
  for await (const { scored } of client.stream(source())) {
    assert.equal(scored?.prediction, digitLabel);
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(isClosed);
  function* failing() {
    yield digit;
    throw new Error("the source failed");
  }
  const found: unknown[] = [];
  await assert.rejects(async () => {
    for await (const { scored } of client.stream(failing())) {
      found.push(scored?.prediction);
    }
  }, /the source failed/);
  assert.deepEqual(found, [digitLabel]);
});

test("a key that the service has lost is registered again, and a model that has changed is followed", async () => {
  const client = await connected({ model: "changing" });
  assert.equal(client.offer.requiredKey, "publicEncryptionKey");
  const before = (await client.predict([[0.5, 0.25]]))[0];
  await act("forget");
  assert.deepEqual((await client.predict([[0.5, 0.25]]))[0], before);
  const { configId } = client.model;
  await act("change");
  const [after_] = await client.predict([[0.5, 0.25]]);
  assert.notEqual(client.model.configId, configId);
  assert.ok(Math.abs(Number((after_ as Float64Array)[0]) - 1.75) < 0.05);
  assert.ok(Math.abs(Number((before as Float64Array)[0]) - 0.25) < 0.05);
});

test("without streams of requests, only what fits into a message is offered", async () => {
  const client = await connected({ model: "digits", streamsRequests: false });
  assert.deepEqual(await client.predict([digit, digit]), [digitLabel, digitLabel]);
});

test("a client that is disposed of makes no calls, and frees what it holds", async () => {
  await loadSeal();
  using client = await Client.connect(transportTo(address), { model: "digits" });
  const last = client.predict([digit]);
  client.dispose();
  client.dispose();
  assert.deepEqual(await last, [digitLabel], "a call that runs ends first");
  await assert.rejects(client.predict([digit]), isOf("disposed"));
  assert.throws(() => client.model, isOf("disposed"));
});
