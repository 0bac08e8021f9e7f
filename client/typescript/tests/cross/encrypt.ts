/**
 * Encrypts the rows of the vectors' items under the vectors' keys, for the checks of other clients.
 *
 * `node tests/cross/encrypt.ts FOLDER` writes for each item FOLDER/NAME.binpb, a PredictRequest, and
 * FOLDER/NAME.key, the public key of its own that it names, if there is one.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { PredictRequestSchema } from "../../src/generated/sealserve/v1/prediction_pb.ts";
import { list } from "../vectors/files.ts";
import { codecOf, readItem } from "../vectors/item.ts";

const folder = process.argv[2];
for (const name of list("items")) {
  const item = await readItem(name);
  using codec = await codecOf(item, !name.endsWith("residues"));
  const { rows } = item.expected;
  const ciphertexts = [...codec.ciphertexts(codec.quantize(rows))];
  const request = create(PredictRequestSchema, { header: codec.header(rows.length), ciphertexts });
  writeFileSync(join(folder, `${name}.binpb`), toBinary(PredictRequestSchema, request));
  if (codec.publicKey !== undefined) {
    writeFileSync(join(folder, `${name}.key`), codec.publicKey.data);
  }
}
