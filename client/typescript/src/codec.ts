/** RowCodec: encrypts rows into items and decrypts replies into scores. No I/O. */

import { create } from "@bufbuild/protobuf";
import { parameterError, replyError, SealserveError } from "./errors.ts";
import {
  type EncryptedScores,
  type ItemHeader,
  ItemHeaderSchema,
  ReplyForm,
} from "./generated/sealserve/v1/prediction_pb.ts";
import { Decryptor } from "./he/decryptor.ts";
import { Encryptor } from "./he/encryptor.ts";
import { columnPacking, type Packing, rowPacking } from "./he/packing.ts";
import { decrypts } from "./he/reply-bits.ts";
import type { Seal } from "./he/seal.ts";
import type { PublicKey, SecretKey } from "./he/secret-key.ts";
import type { Value } from "./protocol/column.ts";
import { featuresOf } from "./protocol/features.ts";
import type { Quantized } from "./protocol/grid.ts";
import { type Model, maxPairBytes, type Offer } from "./protocol/model.ts";
import { layoutNumber } from "./protocol/offer-description.ts";

// The most bytes of replies that a client keeps at a time.
const MAX_REPLY_BYTES = 2 ** 31;

/** How a client encrypts. */
export interface CodecOptions {
  /** Move features outside the model's range to its nearest end instead of refusing them. */
  readonly clip: boolean;
  /** Send ciphertexts of half the size; smaller still where the offer takes packed ones. */
  readonly seeded: boolean;
}

/** The decrypted reply to an item. */
export interface Decrypted {
  /** Of each row. */
  readonly scores: readonly Float64Array[];
  /** Whether each score is within its published range; those of dummies do not count. */
  readonly isPlausible: boolean;
}

/** Encrypts rows for one offer of a model and decrypts the replies. */
export class RowCodec {
  readonly model: Model;
  readonly offer: Offer;
  readonly secretKey: SecretKey;
  /** The key to register before the first item; undefined where the weights are open. */
  readonly publicKey: PublicKey | undefined;
  /** The length of all ciphertexts of an item. */
  readonly itemBytes: number;
  /** The number of polynomial pairs of a reply. */
  readonly pairCount: number;
  /** Whether an item and its reply may each travel in one message. */
  readonly fitsAMessage: boolean;
  readonly #packing: Packing;
  readonly #clip: boolean;
  readonly #encryptor: Encryptor;
  readonly #decryptor: Decryptor;
  readonly #lowest: readonly bigint[];

  private constructor(
    seal: Seal,
    model: Model,
    offer: Offer,
    secretKey: SecretKey,
    publicKey: PublicKey | undefined,
    { clip, seeded }: CodecOptions,
  ) {
    this.model = model;
    this.offer = offer;
    this.secretKey = secretKey;
    this.publicKey = publicKey;
    this.#clip = clip;
    this.#packing = packingOf(model, offer);
    this.pairCount = this.#packing.polynomials;
    this.#lowest = offer.scoreCenters.map((center, k) => center - offer.scoreRadii[k]);
    const form = seeded ? (offer.takesPackedCiphertexts ? "packed" : "seeded") : "full";
    this.#encryptor = new Encryptor(seal, offer.parameters, secretKey, form);
    try {
      if (!areEqual(this.#encryptor.parmsId, offer.parameters.parmsId)) {
        throw parameterError(`model '${model.name}': parms_id is not that of the published parameters`);
      }
      this.#decryptor = new Decryptor(seal, offer.parameters, secretKey, offer.replyBits);
    } catch (error) {
      this.#encryptor[Symbol.dispose]();
      throw error;
    }
    this.itemBytes = this.#packing.ciphertexts * this.#encryptor.ciphertextBytes;
    this.fitsAMessage = Math.max(this.itemBytes, offer.cost.replyBytes) <= model.limits.maxMessageBytes;
  }

  /**
   * Make a codec.
   *
   * @param secretKey a key of the offer's ring.
   * @throws SealserveError of kind "parameter": the offer contradicts itself.
   */
  static async of(
    seal: Seal,
    model: Model,
    offer: Offer,
    secretKey: SecretKey,
    options: CodecOptions,
  ): Promise<RowCodec> {
    if (!secretKey.fits(offer.parameters)) {
      throw new SealserveError({ kind: "secretKey" }, "the secret key is not of the ring of the offer");
    }
    const publicKey = offer.requiredKey === undefined ? undefined : await secretKey.publicKey;
    return new RowCodec(seal, model, offer, secretKey, publicKey, options);
  }

  /** The number of ciphertexts of an item. */
  get ciphertextCount(): number {
    return this.#packing.ciphertexts;
  }

  /** Compute the features of rows and round them onto the grid. Refused rows become dummies. */
  quantize(rows: readonly (readonly Value[])[]): Quantized {
    const features = rows.map((row) => featuresOf(this.model, row, this.#clip).values);
    return this.model.grid.quantize(features, this.#clip);
  }

  /** Return the header of an item of so many rows. */
  header(rowCount: number): ItemHeader {
    return create(ItemHeaderSchema, {
      model: this.model.name,
      configId: this.model.configId,
      layout: layoutNumber(this.offer.layout),
      parameterSet: this.offer.parameters.parameterSet,
      rowCount,
      ciphertextCount: this.#packing.ciphertexts,
      keyId: this.publicKey?.id ?? "",
      replyForms: [this.offer.replyBits === undefined ? ReplyForm.RESIDUES : ReplyForm.PACKED],
    });
  }

  /**
   * Encrypt rows on the grid, one ciphertext at a time as the caller iterates.
   *
   * @param quantized 1..rowsPerItem rows.
   */
  *ciphertexts({ integers, rowCount }: Quantized): Generator<Uint8Array> {
    const { featureCount } = this.model.grid;
    for (let index = 0; index < this.#packing.ciphertexts; index++) {
      yield this.#encryptor.encrypt((put) => {
        this.#packing.place(index, rowCount, (coefficient, row, feature) => {
          put(coefficient, integers[row * featureCount + feature]);
        });
      });
    }
  }

  /**
   * Decrypt the reply to an item. What it decrypts to raises nothing, and takes no other path: see
   * {@link Decrypted.isPlausible}.
   *
   * @param isRefused which rows were dummies: 1, else 0.
   * @throws SealserveError of kind "reply": the reply is malformed.
   */
  read(rowCount: number, reply: readonly EncryptedScores[], isRefused: Uint8Array): Decrypted {
    if (reply.length !== this.pairCount) {
      throw replyError();
    }
    const { scoreCount } = this.model.output;
    const scores = Array.from({ length: rowCount }, () => new Float64Array(scoreCount));
    let outside = 0;
    reply.forEach((pair, number) => {
      const { first, count } = this.#packing.classesIn(number);
      const residues = this.#decrypted(pair, this.#packing.places(rowCount, count));
      for (let index = 0; index < residues.length; index++) {
        const row = Math.floor(index / count);
        const score = first + (index % count);
        const distance = this.#distance(residues[index], score);
        const isOutside = Number(distance > 2n * this.offer.scoreRadii[score]);
        outside += isOutside & (1 - isRefused[row]);
        scores[row][score] = Number(this.#lowest[score] + distance) / this.offer.scoreScale;
      }
    });
    return { scores, isPlausible: outside === 0 };
  }

  /** Free what it holds. */
  [Symbol.dispose](): void {
    this.#encryptor[Symbol.dispose]();
    this.#decryptor[Symbol.dispose]();
  }

  #decrypted(pair: EncryptedScores, places: Int32Array): BigUint64Array {
    const { form } = pair;
    if (form.case === undefined || form.case !== (this.offer.replyBits === undefined ? "residues" : "packed")) {
      throw replyError();
    }
    return this.#decryptor.decrypt(form.value.c0, form.value.c1, places);
  }

  /** The distance of an integer score from the lowest one, 0..t - 1. */
  #distance(residue: bigint, score: number): bigint {
    const t = this.offer.parameters.plainModulus;
    const distance = (residue - this.#lowest[score]) % t;
    return distance < 0n ? distance + t : distance;
  }
}

/** Return the bytes of a polynomial pair, or of what else stands in its place. */
export function bytesOfPair({ form }: EncryptedScores): number {
  if (form.case === "sealCiphertext") {
    return form.value.length;
  }
  return form.case === undefined ? 0 : form.value.c0.length + form.value.c1.length;
}

/**
 * Return the packing of an offer's items.
 *
 * @throws SealserveError of kind "parameter": this version does not encrypt for the layout, or what
 * is published contradicts itself.
 */
export function packingOf(model: Model, offer: Offer): Packing {
  const { polyModulusDegree, plainModulus } = offer.parameters;
  const refuse = (why: string) => parameterError(`model '${model.name}': ${why}`);
  if (offer.layout === "ei-slots") {
    throw refuse(`this version does not encrypt for layout ${offer.layout}`);
  }
  const make = offer.layout === "row" ? rowPacking : columnPacking;
  const packing = make(polyModulusDegree, model.grid.featureCount, model.output.scoreCount, offer.classesPerPolynomial);
  if (packing === undefined) {
    throw refuse(`${offer.classesPerPolynomial} classes do not fit into a polynomial`);
  }
  const leastRows = offer.privateWeights && offer.layout === "row" ? 1 : packing.rows;
  const { rowsPerItem } = offer;
  if (rowsPerItem < leastRows || rowsPerItem > packing.rows || packing.ciphertexts !== offer.ciphertextsPerItem) {
    throw refuse("the published sizes of an item contradict its packing");
  }
  if (packing.polynomials * maxPairBytes(offer) > MAX_REPLY_BYTES) {
    throw refuse(`a reply could have more than ${MAX_REPLY_BYTES} bytes, which this client does not take`);
  }
  if (offer.replyBits !== undefined && !decrypts(offer.replyBits, offer.parameters)) {
    throw refuse("replies of the published bits cannot be decrypted");
  }
  const greatest = model.grid.levels.reduce((most, level) => Math.max(most, level), 0);
  if (BigInt(greatest) >= plainModulus) {
    throw refuse("features on its grid do not fit the plaintext modulus");
  }
  return packing;
}

function areEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}
