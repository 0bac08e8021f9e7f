/** The Worker: it holds the secret keys, encrypts and decrypts. */

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { announceWorker, Client, loadSeal, type Model, SealserveError } from "../../src/index.ts";
import { type Answer, MODES, type Mode, type ModelName, type Question, type Reply, type Trouble } from "./messages.ts";
import { Wire } from "./wire.ts";

const TIMEOUT_MS = 10_000;
// Vite moves the file, and finds it by this expression.
const WASM_URL = new URL("../../node_modules/node-seal/dist/seal_throws.wasm", import.meta.url);

/** What the page knows of its models. */
const EXPECTED: Readonly<Record<ModelName, (model: Model) => boolean>> = {
  digits: ({ grid, steps, output }) =>
    steps === undefined && grid.featureCount === 64 && output.classes.length === 10 && output.hasProbabilities,
  loans: ({ schema, output }) =>
    ["housing", "job", "age", "income", "loan"].every((name) => schema.columnNames.includes(name)) &&
    output.classes.length === 2 &&
    output.hasProbabilities,
};

class WrongModel extends Error {}

interface Connection {
  readonly client: Client;
  readonly wire: Wire;
}

const connections = new Map<string, Promise<Connection>>();
const firstAttempts = new Map<ModelName, Promise<unknown>>();

/** Return the connection to a model, and make it first if there is none. */
function connected(mode: Mode, model: ModelName): Promise<Connection> {
  const name = `${mode} ${model}`;
  let found = connections.get(name);
  if (found === undefined) {
    found = connect(mode, model);
    connections.set(name, found);
    found.catch(() => connections.delete(name)); // it may succeed later
  }
  return found;
}

async function connect(mode: Mode, model: ModelName): Promise<Connection> {
  await loadSeal({ wasmUrl: WASM_URL });
  const wire = new Wire();
  const transport = createGrpcWebTransport({ baseUrl: `${self.location.origin}/${mode}`, fetch: wire.fetch });
  const client = await Client.connect(transport, { model, layout: "row", timeoutMs: TIMEOUT_MS });
  if (!EXPECTED[model](client.model) || client.offer.privateWeights !== (mode === "private")) {
    client.dispose();
    throw new WrongModel();
  }
  return { client, wire };
}

/** Connect to both services. Only the first attempt does, so that making keys disturbs no times later. */
function prepared(model: ModelName): Promise<unknown> {
  const attempt = firstAttempts.get(model) ?? Promise.allSettled(MODES.map((mode) => connected(mode, model)));
  firstAttempts.set(model, attempt);
  return attempt;
}

async function answered({ mode, model, row }: Question): Promise<Answer> {
  await prepared(model);
  const { client, wire } = await connected(mode, model);
  wire.begin();
  const began = performance.now();
  const [{ prediction, scores, probabilities }] = await client.scored([row]);
  const ended = performance.now();
  const { calls } = wire;
  const call = calls[calls.length - 1];
  const spentBefore = calls.slice(0, -1).reduce((sum, each) => sum + each.ended - each.began, 0);
  return {
    label: String(prediction),
    scores: Array.from(scores),
    labels: client.model.output.classes.map(String),
    probabilities: Array.from(probabilities ?? []),
    featureCount: client.model.grid.featureCount,
    sent: call.sent,
    receivedBytes: call.receivedBytes,
    keyBytes: wire.keyBytes,
    times: {
      encrypt: call.began - began - spentBefore,
      away: call.ended - call.began,
      decrypt: ended - call.ended,
    },
  };
}

function troubleOf(error: unknown): Trouble {
  if (error instanceof WrongModel) {
    return { kind: "wrongModel" };
  }
  if (!(error instanceof SealserveError)) {
    return { kind: "unknown" };
  }
  const { failure } = error;
  return failure.kind === "unsupported" ? { kind: failure.kind, feature: failure.feature } : { kind: failure.kind };
}

self.onmessage = async ({ data }: MessageEvent<Question>) => {
  const { id } = data;
  const reply: Reply = await answered(data).then(
    (answer) => ({ id, answer }),
    (error: unknown) => ({ id, trouble: troubleOf(error) }),
  );
  self.postMessage(reply);
};
announceWorker();
void prepared("digits"); // early; a question tells the page if it fails
