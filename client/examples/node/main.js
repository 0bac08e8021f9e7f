// Asks an agent for predictions of a CSV file's rows, through stubs of the Open Inference Protocol.
//
//     node main.js ADDRESS TOKEN_FILE COMMAND MODEL ROWS.csv
//
// ADDRESS is unix:PATH or 127.0.0.1:PORT. The commands batch, rows and stream print CSV: labels,
// scores and probabilities. The commands deadline, cancel and refused fail on purpose, and print
// the status and the reason. The command time prints how long a row and a batch took, in
// milliseconds. An empty TOKEN_FILE sends no token. The file's fields have no quotes and no commas.

import { readFileSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { GRPCInferenceService } from "./stubs/sealserve/inference/open_inference_pb.js";

const CALLS = 200; // that the command time times

const [address, tokenFile, command, name, path] = process.argv.slice(2);
const agent = createClient(GRPCInferenceService, transport(address));
const headers = tokenFile ? { authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}` } : {};
const [names, ...rows] = readFileSync(path, "utf8").trimEnd().split("\n").map((line) => line.split(","));
const text = new TextDecoder();

function transport(place) {
  if (!place.startsWith("unix:")) {
    return createGrpcTransport({ baseUrl: `http://${place}` });
  }
  const createConnection = () => connectSocket(place.slice("unix:".length));
  return createGrpcTransport({ baseUrl: "http://localhost", nodeOptions: { createConnection } });
}

/** Some rows as the tensors that a model takes: one of all columns, or one a column. */
function inputsOf(model, begin, end) {
  const chosen = rows.slice(begin, end);
  if (model.inputs.length === 1 && model.inputs[0].shape.length === 2) {
    return [tensor(model.inputs[0], chosen.flat(), [chosen.length, names.length])];
  }
  return model.inputs.map((column) => {
    const place = names.indexOf(column.name);
    if (place < 0) {
      throw new Error(`the file has no column ${column.name}`);
    }
    return tensor(column, chosen.map((row) => row[place]), [chosen.length]);
  });
}

function tensor({ name, datatype }, values, shape) {
  const contents =
    datatype === "BYTES"
      ? { bytesContents: values.map((value) => new TextEncoder().encode(value)) }
      : { fp64Contents: values.map(Number) };
  return { name, datatype, shape: shape.map(BigInt), contents };
}

/** The outputs of a reply as lines of CSV, one for each row. Labels are strings, integers or booleans. */
function lines(reply, withHeader) {
  const columns = reply.outputs.map(({ name, shape, contents: found }) => ({
    name,
    width: Number(shape[1] ?? 1),
    texts: [
      ...found.bytesContents.map((bytes) => text.decode(bytes)),
      ...found.int64Contents.map(String),
      ...found.boolContents.map(String),
      ...found.fp64Contents.map(String),
    ],
  }));
  const header = columns.flatMap(({ name, width }) => Array.from({ length: width }, (_, place) => `${name}_${place}`));
  const cells = (row) => columns.flatMap(({ width, texts }) => texts.slice(row * width, (row + 1) * width));
  const count = Number(reply.outputs[0].shape[0]);
  return [...(withHeader ? [header] : []), ...Array.from({ length: count }, (_, row) => cells(row))].join("\n");
}

function requestOf(model, begin, end) {
  return { modelName: model.name, id: String(begin), inputs: inputsOf(model, begin, end) };
}

/** Sends each row as a request of one stream. Replies come in any order, each with its id. */
async function stream(model) {
  async function* requests() {
    for (const row of rows.keys()) {
      yield requestOf(model, row, row + 1);
    }
  }
  const replies = [];
  for await (const { errorMessage, inferResponse } of agent.modelStreamInfer(requests(), { headers })) {
    if (errorMessage) {
      throw new Error(errorMessage);
    }
    replies[Number(inferResponse.id)] = inferResponse;
  }
  replies.forEach((reply, row) => console.log(lines(reply, row === 0)));
}

/** Times single rows, and all rows at once. */
async function time(model) {
  for (const size of [1, rows.length]) {
    const count = Math.max(3, Math.floor(CALLS / size));
    const taken = [];
    for (let call = -count; call < count; call++) {
      const begin = performance.now();
      await agent.modelInfer(requestOf(model, 0, size), { headers });
      if (call >= 0) { // the first ones connect, and are interpreted
        taken.push(performance.now() - begin);
      }
    }
    taken.sort((one, other) => one - other);
    console.log(`${size} ${taken[count >> 1].toFixed(3)}`);
  }
}

const COMMANDS = {
  batch: async (model) => console.log(lines(await agent.modelInfer(requestOf(model, 0, rows.length), { headers }), true)),
  rows: async (model) => {
    for (const row of rows.keys()) {
      console.log(lines(await agent.modelInfer(requestOf(model, row, row + 1), { headers }), row === 0));
    }
  },
  stream,
  deadline: (model) => agent.modelInfer(requestOf(model, 0, rows.length), { headers, timeoutMs: 1 }),
  cancel: (model) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 2);
    return agent.modelInfer(requestOf(model, 0, rows.length), { headers, signal: controller.signal });
  },
  refused: (model) => agent.modelInfer({ ...requestOf(model, 0, 1), outputs: [{ name: "logits" }] }, { headers }),
  time,
};

/** The reason of a failed call, such as OUT_OF_RANGE: field 1 of google.rpc.ErrorInfo. */
function reasonOf(error) {
  for (const { type, value } of error.details) {
    const reader = type === "google.rpc.ErrorInfo" ? new BinaryReader(value) : { pos: 0, len: 0 };
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (field === 1) {
        return reader.string();
      }
      reader.skip(wireType);
    }
  }
  return "-";
}

try {
  await COMMANDS[command](await agent.modelMetadata({ name }, { headers }));
} catch (error) {
  const failed = ConnectError.from(error);
  console.error(`${Code[failed.code]} ${reasonOf(failed)} ${failed.rawMessage}`);
  process.exitCode = 1;
}
process.stdout.write("", () => process.exit()); // once all is written: the connection stays open
