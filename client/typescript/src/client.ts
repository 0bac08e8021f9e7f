/** Client: predictions of a model on rows that only the client sees. */

import type { Transport } from "@connectrpc/connect";
import { inputError, replyError, type SealserveError } from "./errors.ts";
import type { SecretKey } from "./he/secret-key.ts";
import type { LayoutChoice } from "./offer-choice.ts";
import type { Model, Offer } from "./protocol/model.ts";
import type { Prediction } from "./protocol/output.ts";
import { digestOf } from "./protocol/pin.ts";
import { refusal } from "./protocol/refusal.ts";
import type { Row, Rows } from "./protocol/schema.ts";
import { CallTime } from "./rpc/call-time.ts";
import { Service } from "./rpc/service.ts";
import { type RowResult, type ScoredRows, Session } from "./session.ts";
import type { StoredKeys } from "./stored-keys.ts";
import { type Streamed, streamed } from "./stream.ts";

const DEFAULT_TIMEOUT_MS = 60_000;
const LAYOUTS: readonly LayoutChoice[] = ["auto", "row", "column"];

/** What a client is told about a service and its model. */
export interface ClientOptions {
  /** The model's name. It may be left out if the service has one model only. */
  readonly model?: string;
  /**
   * The layout to encrypt for; by default "auto", that of the fastest offer for the rows of a call.
   */
  readonly layout?: LayoutChoice;
  /** Whether to send ciphertexts of half the size; by default true. */
  readonly seeded?: boolean;
  /** The key to use; by default one is made for each ring, and forgotten with the client. */
  readonly secretKey?: SecretKey;
  /** Where a browser keeps keys instead of forgetting them. */
  readonly storedKeys?: StoredKeys;
  /**
   * The digest of the model that is expected (see `pinOf`). The client refuses any other model
   * before it encrypts, and refuses rows without a call.
   */
  readonly expect?: string;
  /** Move features outside the model's range to its nearest end instead of refusing the row. */
  readonly clip?: boolean;
  /**
   * How long an answer may take, 60,000 ms by default; Infinity for no limit. A call of several items
   * may take as long for each.
   */
  readonly timeoutMs?: number;
  /**
   * Whether the transport can stream requests; by default it can outside of browsers. If it cannot,
   * only offers whose items fit into one message are used.
   */
  readonly streamsRequests?: boolean;
  /** Ends the calls that `connect` makes. */
  readonly signal?: AbortSignal;
}

/** What a method may be told about its calls. */
export interface CallOptions {
  /** Ends the calls, and the method with an error of kind "aborted". */
  readonly signal?: AbortSignal;
  /** How long the answer may take; by default the client's. Infinity for no limit. */
  readonly timeoutMs?: number;
}

/** What {@link Client.stream} may be told. `timeoutMs` is that of an item. */
export interface StreamOptions extends CallOptions {
  /**
   * How many rows to put into an item, at most the offer's rowsPerItem. Rows of one item share
   * ciphertexts, so that each costs less. By default 1, for the least delay; with layout "column"
   * as many as the offer takes.
   */
  readonly rowsPerItem?: number;
}

/** Decrypted scores of a row, with what they mean. */
export interface ScoredRow {
  /** A label, indicators or targets: what `predict` returns. */
  readonly prediction: Prediction;
  readonly scores: Float64Array;
  /** What `predictProba` returns; undefined if the model has no probabilities. */
  readonly probabilities: Float64Array | undefined;
}

/**
 * Predicts with a model of a service that sees neither features nor scores. Make one with {@link
 * Client.connect}, and dispose of it when it is not needed any more: WebAssembly frees nothing by
 * itself.
 *
 * Every method throws {@link SealserveError} only. Calls may overlap. Do not send scores, errors or
 * decisions to retry back to the service's operator.
 */
export class Client {
  readonly #session: Session;
  readonly #options: ClientOptions;

  private constructor(session: Session, options: ClientOptions) {
    this.#session = session;
    this.#options = options;
  }

  /**
   * Get the description of a model, and make a key for it.
   *
   * @param transport of @connectrpc/connect-node (gRPC) or @connectrpc/connect-web (gRPC-Web).
   * @throws SealserveError: the service refuses or cannot be reached, its description makes no
   * sense or is not the expected one, or the platform cannot run SEAL.
   */
  static async connect(transport: Transport, options: ClientOptions = {}): Promise<Client> {
    const { model = "", layout = "auto", seeded = true, clip = false, secretKey, storedKeys } = options;
    if (!LAYOUTS.includes(layout)) {
      throw inputError(`layout '${layout}' is not one of ${LAYOUTS.join(", ")}`);
    }
    if (secretKey !== undefined && storedKeys !== undefined) {
      throw inputError("there are a secretKey and storedKeys: give one of them");
    }
    const expect = options.expect === undefined ? undefined : digestOf(options.expect);
    if (options.expect !== undefined && expect === undefined) {
      throw inputError("expect is not the digest of a model, 64 hexadecimal digits");
    }
    const session = new Session(new Service(transport), {
      modelName: model,
      layout,
      seeded,
      secretKey,
      storedKeys,
      expect,
      clip,
      streamsRequests: options.streamsRequests ?? !isBrowser(),
    });
    const client = new Client(session, options);
    try {
      await session.begin(client.#time(options));
    } catch (error) {
      client.dispose();
      throw error;
    }
    return client;
  }

  /** The service's description of the model. It may change with a call. */
  get model(): Model {
    return this.#session.model;
  }

  /**
   * How single rows are encrypted. Calls of many rows may take another offer; see {@link offerFor}.
   */
  get offer(): Offer {
    return this.#session.offer(1);
  }

  /** Return how so many rows are encrypted. */
  offerFor(rowCount: number): Offer {
    return this.#session.offer(rowCount);
  }

  /**
   * Predict rows, as scikit-learn's predict does: for each a label, a number or targets, or an
   * indicator for each label.
   *
   * A row that is not finite or out of range fails the call, after the answer has come.
   */
  async predict(rows: Rows, options: CallOptions = {}): Promise<Prediction[]> {
    const { model, scores } = await this.#scores(rows, options);
    return scores.map((ofRow) => model.output.predict(ofRow));
  }

  /**
   * Return the probabilities of rows, in the order of `model.output.classes`.
   *
   * @throws SealserveError of kind "noSuchMethod": the model has none.
   */
  async predictProba(rows: Rows, options: CallOptions = {}): Promise<Float64Array[]> {
    this.model.output.checkProbabilities();
    const { model, scores } = await this.#scores(rows, options);
    return scores.map((ofRow) => model.output.predictProba(ofRow));
  }

  /**
   * Return what the estimator's decision_function returns: for each row a number, if a single score
   * decides between two classes, or one for each class.
   *
   * @throws SealserveError of kind "noSuchMethod": the estimator has none.
   */
  async decisionFunction(rows: Rows, options: CallOptions = {}): Promise<(number | Float64Array)[]> {
    this.model.output.checkDecisionFunction();
    const { model, scores } = await this.#scores(rows, options);
    return scores.map((ofRow) => model.output.decisionFunction(ofRow));
  }

  /** Return predictions, scores and probabilities of rows with one call. */
  async scored(rows: Rows, options: CallOptions = {}): Promise<ScoredRow[]> {
    const { model, scores } = await this.#scores(rows, options);
    return scores.map((ofRow) => scoredRow(model, ofRow));
  }

  /**
   * Compute the features of rows, on this machine: what the model's published steps make of the
   * columns, before they are rounded onto the grid. Nothing that depends on them is sent.
   */
  features(rows: Rows): Float64Array[] {
    return this.#session.features(rows);
  }

  /**
   * Predict rows as they come from an iterable, which may be endless. Results come in the order of
   * the rows, each as soon as it is there: a row that is refused or that fails has an error in its
   * place.
   *
   * The service can see when the caller takes results, if it takes them slowly, and when it leaves
   * the stream: let neither depend on results.
   *
   * @throws SealserveError: the service cannot be reached, or refuses the client.
   * @throws what iterating over `rows` throws, after the results of the rows before.
   */
  stream(
    rows: AsyncIterable<Row, unknown, undefined> | Iterable<Row, unknown, undefined>,
    options: StreamOptions = {},
  ): AsyncGenerator<Streamed> {
    const isColumn = this.#options.layout === "column";
    const rowsPerItem = options.rowsPerItem ?? (isColumn ? this.offer.rowsPerItem : 1);
    if (!Number.isInteger(rowsPerItem) || rowsPerItem < 1) {
      throw inputError("rowsPerItem is not an integer of at least 1");
    }
    const most = Math.min(rowsPerItem, this.offerFor(rowsPerItem).rowsPerItem);
    return streamed(rows, most, this.#session.parallel(most), async (item, signal) => {
      const time = this.#time(options).linked(signal);
      const { model, results } = await this.#session.score(item, time);
      return results.map((result) => this.#outcome(model, result));
    });
  }

  /** Free what the client holds. Calls that run end first; later ones fail with kind "disposed". */
  dispose(): void {
    this.#session[Symbol.dispose]();
  }

  /** The same as {@link dispose}. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Return what a row of a stream has become. */
  #outcome(model: Model, result: RowResult): ScoredRow | SealserveError {
    if (result.kind === "scored") {
      return scoredRow(model, result.scores);
    }
    return result.kind === "refused" ? refusal(model, new Map([[0, result.row]]), this.#clips) : result.error;
  }

  get #clips(): boolean {
    return this.#options.clip ?? false;
  }

  /** Score rows, or throw the error of the first kind that there is: refused rows, then replies. */
  async #scores(
    rows: Rows,
    options: CallOptions,
  ): Promise<{ readonly model: Model; readonly scores: readonly Float64Array[] }> {
    const { model, results } = await this.#session.score(rows, this.#time(options));
    throwRefused({ model, results }, this.#clips);
    return {
      model,
      scores: results.map((result) => {
        if (result.kind !== "scored") {
          throw replyError();
        }
        return result.scores;
      }),
    };
  }

  #time({ timeoutMs = this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS, signal }: CallOptions): CallTime {
    if (!(timeoutMs > 0)) {
      throw inputError("timeoutMs is not above 0");
    }
    return CallTime.of(timeoutMs, signal);
  }
}

function throwRefused({ model, results }: ScoredRows, clip: boolean): void {
  const refused = results.flatMap((result, k) => (result.kind === "refused" ? [[k, result.row] as const] : []));
  if (refused.length > 0) {
    throw refusal(model, new Map(refused), clip);
  }
}

function scoredRow({ output }: Model, scores: Float64Array): ScoredRow {
  const probabilities = output.hasProbabilities ? output.predictProba(scores) : undefined;
  return { prediction: output.predict(scores), scores, probabilities };
}

function isBrowser(): boolean {
  return typeof process === "undefined" || typeof process.versions?.node !== "string";
}
