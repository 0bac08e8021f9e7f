/** Items of the vectors: what a client knows of one, what it sends, and what comes back. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { equals, fromBinary, type JsonObject } from "@bufbuild/protobuf";
import { packingOf, RowCodec } from "../../src/codec.ts";
import { GetModelResponseSchema, ModelSchema } from "../../src/generated/sealserve/v1/model_pb.ts";
import {
  type EncryptedScores,
  type ItemHeader,
  PredictRequestSchema,
  PredictResponseSchema,
  StreamPredictRequestSchema,
  StreamPredictResponseSchema,
} from "../../src/generated/sealserve/v1/prediction_pb.ts";
import { loadedSeal } from "../../src/he/seal.ts";
import type { Value } from "../../src/protocol/column.ts";
import { modelOf } from "../../src/protocol/description.ts";
import { checkRequirements, type Model, type Offer } from "../../src/protocol/model.ts";
import { layoutName } from "../../src/protocol/offer-description.ts";
import { FOLDER, messagesOf, ofJson, readBytes, readJson } from "./files.ts";
import { type Keys, readKeys } from "./rings.ts";

/** What comes of an item. */
export interface Expected {
  readonly ring: string;
  readonly rows: readonly (readonly Value[])[];
  readonly cells: readonly (readonly number[])[];
  readonly noise_sha256: readonly string[];
  readonly integers: readonly (readonly string[])[];
  readonly scores: readonly (readonly number[])[];
  readonly predictions: readonly unknown[];
  readonly probabilities?: readonly unknown[];
}

/** An item of the vectors, and a codec that has its keys. */
export interface Item {
  readonly model: Model;
  readonly offer: Offer;
  readonly header: ItemHeader;
  readonly ciphertexts: readonly Uint8Array[];
  readonly reply: readonly EncryptedScores[];
  readonly expected: Expected;
  readonly keys: Keys;
}

/** Read an item. */
export async function readItem(name: string): Promise<Item> {
  const folder = `items/${name}`;
  const described = fromBinary(GetModelResponseSchema, readBytes(`${folder}/description.binpb`)).model;
  const inJson = ofJson(GetModelResponseSchema, readJson<JsonObject>(`${folder}/description.json`)).model;
  assert.ok(described && inJson && equals(ModelSchema, described, inJson));
  const model = modelOf(described);
  checkRequirements(model);
  const { header, ciphertexts, reply } = readMessages(folder);
  const layout = layoutName(header.layout);
  const offer = model.offers.find(
    ({ layout: found, parameters }) => found === layout && parameters.parameterSet === header.parameterSet,
  );
  assert.ok(offer);
  const expected = readJson<Expected>(`${folder}/expected.json`);
  return { model, offer, header, ciphertexts, reply, expected, keys: await readKeys(expected.ring) };
}

function readMessages(folder: string): Pick<Item, "header" | "ciphertexts" | "reply"> {
  if (existsSync(new URL(`${folder}/request.binpb`, FOLDER))) {
    const request = fromBinary(PredictRequestSchema, readBytes(`${folder}/request.binpb`));
    const response = fromBinary(PredictResponseSchema, readBytes(`${folder}/reply.binpb`));
    assert.ok(request.header && response.scores?.firstIndex === 0);
    return { header: request.header, ciphertexts: request.ciphertexts, reply: response.scores.scores };
  }
  const requests = messagesOf(StreamPredictRequestSchema, readBytes(`${folder}/requests.binpb`));
  const responses = messagesOf(StreamPredictResponseSchema, readBytes(`${folder}/replies.binpb`));
  const [first] = requests;
  assert.ok(first.header && responses.at(-1)?.end.case === "done");
  return {
    header: first.header,
    ciphertexts: requests.flatMap(({ chunk }) => chunk?.ciphertexts ?? []),
    reply: responses.flatMap(({ scores }) => scores?.scores ?? []),
  };
}

/** Make a codec with the keys of an item. */
export function codecOf({ model, offer, keys }: Item, seeded = true): Promise<RowCodec> {
  return loadedSeal().then((seal) => RowCodec.of(seal, model, offer, keys.secretKey, { clip: false, seeded }));
}

/** The polynomials of rows on the grid, as the codec lays them out. */
export function plaintextsOf({ model, offer }: Item, cells: readonly (readonly number[])[]): bigint[][] {
  const packing = packingOf(model, offer);
  return Array.from({ length: packing.ciphertexts }, (_, index) => {
    const plaintext = new Array<bigint>(offer.parameters.polyModulusDegree).fill(0n);
    packing.place(index, cells.length, (coefficient, row, feature) => {
      plaintext[coefficient] = BigInt(cells[row][feature]);
    });
    return plaintext;
  });
}
