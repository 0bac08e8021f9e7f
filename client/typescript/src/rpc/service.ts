/** Service: the calls that a client makes, with typed errors, deadlines and retries. */

import { create } from "@bufbuild/protobuf";
import { createClient, type Client as RpcClient, type Transport } from "@connectrpc/connect";

import { bytesOfPair, type RowCodec } from "../codec.ts";
import { parameterError, replyError, SealserveError } from "../errors.ts";
import {
  type KeyHeader,
  KeyHeaderSchema,
  KeyKind,
  KeyService,
  type RegisterKeyRequest,
  RegisterKeyRequestSchema,
} from "../generated/sealserve/v1/keys_pb.ts";
import { type Model as ModelMessage, ModelService } from "../generated/sealserve/v1/model_pb.ts";
import {
  ChunkSchema,
  type EncryptedScores,
  PredictionService,
  type ScoreGroup,
  type StreamPredictRequest,
  StreamPredictRequestSchema,
} from "../generated/sealserve/v1/prediction_pb.ts";
import type { PublicKey } from "../he/secret-key.ts";
import type { Quantized } from "../protocol/grid.ts";
import { type Limits, type Model, maxPairBytes, type Offer } from "../protocol/model.ts";
import type { CallTime } from "./call-time.ts";
import { withRetries } from "./retry.ts";
import { callError, serviceError } from "./service-error.ts";

const CHUNK_BYTES = 1 << 20;
const CIPHERTEXTS_A_CHUNK = 8;
// Most keys are of no use once their client has ended, and a store has no room for all of them.
const PUBLIC_KEY_TTL_SECONDS = 3600n;
const ITEM_ID = 1n;

/** The calls of one service. */
export class Service {
  readonly #models: RpcClient<typeof ModelService>;
  readonly #keys: RpcClient<typeof KeyService>;
  readonly #predictions: RpcClient<typeof PredictionService>;

  constructor(transport: Transport) {
    this.#models = createClient(ModelService, transport);
    this.#keys = createClient(KeyService, transport);
    this.#predictions = createClient(PredictionService, transport);
  }

  /** Get the description of a model. */
  async model(name: string, configId: string, time: CallTime): Promise<ModelMessage> {
    const { model } = await called(time, () => this.#models.getModel({ model: name, configId }, time.options()));
    if (model === undefined) {
      throw parameterError("the service describes no model");
    }
    return model;
  }

  /**
   * Get the serialized steps of a model.
   *
   * @throws SealserveError of kind "parameter": there are more or fewer bytes than described.
   */
  async steps({ name, configId, stepsId, stepsBytes }: Model, time: CallTime): Promise<Uint8Array<ArrayBuffer>> {
    return called(time, async () => {
      const data = new Uint8Array(stepsBytes);
      let at = 0;
      for await (const { piece } of this.#models.getInputSteps({ model: name, configId, stepsId }, time.options())) {
        // A malicious service might never stop.
        if (at + piece.length > stepsBytes || piece.length === 0) {
          throw parameterError(`model '${name}': its steps have other bytes than it describes`);
        }
        data.set(piece, at);
        at += piece.length;
      }
      if (at < stepsBytes) {
        throw parameterError(`model '${name}': its steps have fewer bytes than it describes`);
      }
      return data;
    });
  }

  /** Register a public encryption key for an hour. */
  async registerKey(key: PublicKey, offer: Offer, limits: Limits, time: CallTime): Promise<void> {
    const header = create(KeyHeaderSchema, {
      keyId: key.id,
      kind: KeyKind.PUBLIC_ENCRYPTION_KEY,
      parameterSet: offer.parameters.parameterSet,
      byteCount: BigInt(key.data.length),
      ttl: { seconds: PUBLIC_KEY_TTL_SECONDS },
    });
    await called(time, async () => {
      // Browsers cannot stream requests.
      if (key.data.length <= limits.maxMessageBytes) {
        await this.#keys.putKey({ header, data: key.data }, time.options());
      } else {
        await this.#keys.registerKey(keyMessages(header, key.data), time.options());
      }
    });
  }

  /** Tell whether a key is registered. */
  async hasKey(keyId: string, time: CallTime): Promise<boolean> {
    try {
      await called(time, () => this.#keys.getKey({ keyId }, time.options()));
      return true;
    } catch (error) {
      if (error instanceof SealserveError && error.is("keyNotFound")) {
        return false;
      }
      throw error;
    }
  }

  /**
   * Send an item and return the polynomial pairs of its reply. Each attempt encrypts the rows anew.
   *
   * @throws SealserveError of kind "reply": there are more or fewer pairs than there should be, or
   * one is too long.
   */
  async score(codec: RowCodec, rows: Quantized, time: CallTime): Promise<readonly EncryptedScores[]> {
    return called(time, async () => {
      const reply = new Reply(codec);
      if (codec.fitsAMessage) {
        const ciphertexts = [...codec.ciphertexts(rows)];
        const request = { header: codec.header(rows.rowCount), ciphertexts };
        reply.receive((await this.#predictions.predict(request, time.options())).scores);
      } else {
        await this.#stream(codec, rows, time, reply);
      }
      return reply.pairs();
    });
  }

  /** Send an item on a stream of its own. */
  async #stream(codec: RowCodec, rows: Quantized, time: CallTime, reply: Reply): Promise<void> {
    for await (const response of this.#predictions.streamPredict(itemMessages(codec, rows), time.options())) {
      if (response.end.case === "error") {
        throw serviceError(response.end.value);
      }
      reply.receive(response.scores);
      if (response.end.case === "done") {
        return;
      }
    }
    throw replyError();
  }
}

/** The reply to an item, so far. */
class Reply {
  readonly #pairs: EncryptedScores[] = [];
  readonly #pairCount: number;
  readonly #maxPairBytes: number;

  constructor(codec: RowCodec) {
    this.#pairCount = codec.pairCount;
    this.#maxPairBytes = maxPairBytes(codec.offer);
  }

  /** Add a group of pairs. A malicious service might never stop. */
  receive(group: ScoreGroup | undefined): void {
    const pairs = group?.scores ?? [];
    const isDue = pairs.length === 0 || group?.firstIndex === this.#pairs.length;
    const isTooMuch = this.#pairs.length + pairs.length > this.#pairCount;
    if (!isDue || isTooMuch || pairs.some((pair) => bytesOfPair(pair) > this.#maxPairBytes)) {
      throw replyError();
    }
    this.#pairs.push(...pairs);
  }

  /** Return all pairs. */
  pairs(): readonly EncryptedScores[] {
    if (this.#pairs.length !== this.#pairCount) {
      throw replyError();
    }
    return this.#pairs;
  }
}

/** Make a call, and again after temporary failures. */
async function called<T>(time: CallTime, call: () => Promise<T>): Promise<T> {
  return withRetries(time, async () => {
    try {
      return await call();
    } catch (error) {
      throw callError(error, time.signal);
    }
  });
}

async function* keyMessages(header: KeyHeader, data: Uint8Array): AsyncGenerator<RegisterKeyRequest> {
  yield create(RegisterKeyRequestSchema, { header });
  for (let offset = 0; offset < data.length; offset += CHUNK_BYTES) {
    const chunk = { offset: BigInt(offset), data: data.subarray(offset, offset + CHUNK_BYTES) };
    yield create(RegisterKeyRequestSchema, { chunk });
  }
}

/**
 * Yield the messages of an item on a stream: a chunk in each, the header in the first.
 *
 * A chunk has CHUNK_BYTES or CIPHERTEXTS_A_CHUNK ciphertexts, whichever is more, but no more than
 * the service's limit.
 */
async function* itemMessages(codec: RowCodec, rows: Quantized): AsyncGenerator<StreamPredictRequest> {
  const least = (CIPHERTEXTS_A_CHUNK * codec.itemBytes) / codec.ciphertextCount;
  const most = Math.min(Math.max(CHUNK_BYTES, least), codec.model.limits.maxMessageBytes);
  let message = create(StreamPredictRequestSchema, {
    itemId: ITEM_ID,
    header: codec.header(rows.rowCount),
    chunk: { firstIndex: 0 },
  });
  let chunk = create(ChunkSchema);
  let byteCount = 0;
  let index = 0;
  for (const ciphertext of codec.ciphertexts(rows)) {
    if (byteCount > 0 && byteCount + ciphertext.length > most) {
      message.chunk = chunk;
      yield message;
      message = create(StreamPredictRequestSchema, { itemId: ITEM_ID });
      chunk = create(ChunkSchema, { firstIndex: index });
      byteCount = 0;
    }
    chunk.ciphertexts.push(ciphertext);
    byteCount += ciphertext.length;
    index++;
  }
  message.chunk = chunk;
  yield message;
}
