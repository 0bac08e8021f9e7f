/** Vectors of what scores mean, and of the errors of calls. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { SealserveError } from "../../src/errors.ts";
import { ErrorSchema, file_sealserve_v1_errors } from "../../src/generated/sealserve/v1/errors_pb.ts";
import { OutputSchema } from "../../src/generated/sealserve/v1/model_pb.ts";
import { outputOf } from "../../src/protocol/description.ts";
import { Output } from "../../src/protocol/output.ts";
import { callError, serviceError } from "../../src/rpc/service-error.ts";
import { areClose, ofJson, readJson } from "./files.ts";

type Json = number | string | boolean | readonly Json[];

test("outputs.json", async (context) => {
  interface Case {
    readonly name: string;
    readonly output: JsonObject;
    readonly scores: readonly (readonly (number | string)[])[];
    readonly predictions: readonly Json[];
    readonly probabilities?: readonly Json[];
    readonly decision_function?: readonly Json[];
  }
  for (const item of readJson<{ cases: readonly Case[] }>("outputs.json").cases) {
    await context.test(item.name, () => {
      const output = new Output(item.name, outputOf(item.name, ofJson(OutputSchema, item.output)));
      const rows = item.scores.map((row) => Float64Array.from(row, Number));
      const predictions = rows.map((row) => output.predict(row));
      if (output.task === "regression") {
        assert.ok(areClose(predictions, item.predictions), JSON.stringify(predictions));
      } else {
        // Integers that are not safe are bigints, which JSON lacks.
        const plain = predictions.map((value) =>
          value instanceof Uint8Array ? Array.from(value) : typeof value === "bigint" ? Number(value) : value,
        );
        assert.deepEqual(plain, item.predictions);
      }
      if (item.decision_function === undefined) {
        if (output.task !== "multilabel" || output.hasNoDecisionFunction) {
          assert.throws(() => output.decisionFunction(rows[0]), isNoSuchMethod);
        }
      } else {
        const found = rows
          .map((row) => output.decisionFunction(row))
          .map((value, k) =>
            // The file has the scores of a row, of which there may be one.
            typeof value === "number" && Array.isArray(item.decision_function?.[k]) ? [value] : value,
          );
        assert.ok(areClose(found, item.decision_function), JSON.stringify(found));
      }
      assert.equal(item.probabilities !== undefined, output.hasProbabilities);
      if (item.probabilities === undefined) {
        assert.throws(() => output.predictProba(rows[0]), isNoSuchMethod);
      } else {
        assert.ok(
          areClose(
            rows.map((row) => output.predictProba(row)),
            item.probabilities,
          ),
        );
      }
    });
  }
});

function isNoSuchMethod(error: unknown): boolean {
  return error instanceof SealserveError && error.is("noSuchMethod");
}

test("errors.json", async (context) => {
  interface Case {
    readonly detail: string | null;
    readonly grpc_status: number;
    readonly grpc_message: string;
    readonly error?: JsonObject;
    readonly grpc_status_details_bin: string;
  }
  const { cases } = readJson<{ cases: readonly Case[] }>("errors.json");
  const kindsOfStatus = new Map([
    [13, "call"],
    [14, "unavailable"],
    [16, "unauthenticated"],
    [4, "deadline"],
  ]);
  for (const [number, item] of cases.entries()) {
    await context.test(`${number}: ${item.detail}`, () => {
      const trailer = new Headers({
        "grpc-status": String(item.grpc_status),
        "grpc-message": encodeURIComponent(item.grpc_message),
        "grpc-status-details-bin": item.grpc_status_details_bin,
      });
      const error = callError(findTrailerError(trailer), undefined);
      if (item.detail === null) {
        const kind = error.failure.kind;
        assert.ok(kind === "service" || kind === (kindsOfStatus.get(item.grpc_status) ?? "call"), kind);
        return;
      }
      const kind = item.detail.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
      assert.equal(error.failure.kind, kind);
      if (item.error !== undefined) {
        const message = ofJson(ErrorSchema, item.error);
        assert.deepEqual(serviceError(message).failure, error.failure);
        assert.deepEqual(withoutKind(error), expectedFields(item.error, kind));
      }
    });
  }
  const details = file_sealserve_v1_errors.messages[0].oneofs[0].fields.map(({ name }) => name);
  assert.deepEqual(new Set(cases.map(({ detail }) => detail)), new Set([...details, null]));
});

/** The fields of a failure, as strings. */
function withoutKind({ failure }: SealserveError): Record<string, string> {
  const { kind: _, ...fields } = failure;
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, String(value)]));
}

/** The fields that protobuf's JSON has of a detail, as strings under the names of the SDK. */
function expectedFields(error: JsonObject, kind: string): Record<string, string> {
  const detail = (error[kind] ?? {}) as Record<string, string | number>;
  return Object.fromEntries(
    Object.entries(detail).map(([name, value]) => {
      const text = String(value);
      if (name === "retryDelay" || name === "waited") {
        return [`${name}Seconds`, String(Number.parseFloat(text))];
      }
      if (name === "layout") {
        return [name, text.replace("LAYOUT_", "").toLowerCase().replace("_", "-")];
      }
      return [name, name === "reason" ? text.replace("REASON_", "").toLowerCase() : text];
    }),
  );
}

test("an error of a later release is one of the service, and its text is made printable", () => {
  const message = create(ErrorSchema, { message: "two\nlines\u202e" });
  const later = fromBinary(ErrorSchema, new Uint8Array([...toBinary(ErrorSchema, message), 0xfa, 0x07, 0]));
  const error = serviceError(later);
  assert.equal(error.failure.kind, "service");
  assert.equal(error.message, "two\\nlines\\u202e");
});
