/**
 * Session: what a client knows between its calls (the model, keys and codecs), and what it can do.
 */

import { RowCodec } from "./codec.ts";
import { type Configuration, Configurations } from "./configurations.ts";
import { parameterError, replyError, SealserveError } from "./errors.ts";
import { sha256 } from "./he/digest.ts";
import { type Ring, sharesRing } from "./he/parameters.ts";
import { loadedSeal } from "./he/seal.ts";
import { SecretKey } from "./he/secret-key.ts";
import { pooled, split } from "./items.ts";
import { chooseOffer, type LayoutChoice } from "./offer-choice.ts";
import type { Value } from "./protocol/column.ts";
import { modelOf } from "./protocol/description.ts";
import { featuresOf } from "./protocol/features.ts";
import type { Quantized } from "./protocol/grid.ts";
import { checkRequirements, type Model, type Offer } from "./protocol/model.ts";
import { checkPin } from "./protocol/pin.ts";
import { refusal } from "./protocol/refusal.ts";
import type { Rows } from "./protocol/schema.ts";
import type { CallTime } from "./rpc/call-time.ts";
import { changeDelayMs, goesOn, MAX_LOSSES } from "./rpc/retry.ts";
import type { Service } from "./rpc/service.ts";
import { Program } from "./steps/program.ts";
import type { StoredKeys } from "./stored-keys.ts";

// How many items of a call are open at a time.
const MAX_PARALLEL = 8;
// How many configurations that were tried are remembered.
const MAX_TRIED = 8;

/** What a session is told by its client. */
export interface SessionOptions {
  readonly modelName: string;
  readonly layout: LayoutChoice;
  readonly seeded: boolean;
  readonly secretKey: SecretKey | undefined;
  /** Where keys are kept; undefined if the session makes them. */
  readonly storedKeys: StoredKeys | undefined;
  /** The digest of the expected model. */
  readonly expect: string | undefined;
  readonly clip: boolean;
  readonly streamsRequests: boolean;
}

/** What has become of a row. */
export type RowResult =
  | { readonly kind: "scored"; readonly scores: Float64Array }
  /** A dummy was sent in its place. */
  | { readonly kind: "refused"; readonly row: readonly Value[] }
  | { readonly kind: "failed"; readonly error: SealserveError };

/** What has become of the rows of a call, with the model that they were scored by. */
export interface ScoredRows {
  readonly model: Model;
  readonly results: readonly RowResult[];
}

/** A model, its codecs and their registered keys. */
export class Session {
  readonly #service: Service;
  readonly #options: SessionOptions;
  readonly #configurations = new Configurations();
  readonly #ownKeys: { readonly ring: Ring; readonly key: Promise<SecretKey> }[] = [];
  readonly #registered = new Set<string>();
  readonly #registering = new Map<string, Promise<void>>();
  #isDisposed = false;

  constructor(service: Service, options: SessionOptions) {
    this.#service = service;
    this.#options = options;
  }

  /** The service's description of the model. */
  get model(): Model {
    this.#checkAlive();
    return this.#current.model;
  }

  /** Get the description of the model, and make what encrypts single rows. */
  async begin(time: CallTime): Promise<void> {
    const [configuration] = await Promise.all([this.#ask(this.#options.modelName, "", time), loadedSeal()]);
    await this.#codec(configuration, this.offer(1));
  }

  /** Return the offer for so many rows. */
  offer(rowCount: number): Offer {
    return this.#offerOf(this.model, rowCount);
  }

  /** Return how many items of so many rows may be open at a time. */
  parallel(rowCount: number): number {
    return openItems(this.model, this.offer(rowCount));
  }

  /** Compute the features of rows. Nothing that depends on them is sent. */
  features(rows: Rows): Float64Array[] {
    const { model } = this;
    const { clip } = this.#options;
    const read = model.schema.read(rows);
    const features = read.map((row) => featuresOf(model, row, clip).values);
    const refused = read.flatMap((row, k) => (features[k].every(Number.isFinite) ? [] : [[k, row] as const]));
    if (refused.length > 0) {
      throw refusal(model, new Map(refused), clip);
    }
    return features;
  }

  /**
   * Score rows. If the model changes, or replicas serve several versions, score them again.
   *
   * Every item is sent, whatever replies decrypt to.
   *
   * @throws SealserveError: a call failed, the model has other columns, or rows are refused and a
   * model is expected.
   */
  async score(rows: Rows, time: CallTime): Promise<ScoredRows> {
    this.#checkAlive();
    let configuration = this.#current;
    const tried: string[] = [];
    for (let changes = 0, losses = 0; ; changes++) {
      try {
        return await configuration.use(() => this.#scoreOnce(configuration, rows, time, changes > 0));
      } catch (error) {
        this.#checkAlive();
        if (!(error instanceof SealserveError && error.is("staleConfig", "keyNotFound"))) {
          throw error;
        }
        const isLoss = error.is("keyNotFound");
        losses += Number(isLoss);
        const delay = changeDelayMs(changes + 1);
        if (losses > MAX_LOSSES || delay >= time.leftMs) {
          throw error;
        }
        await time.pause(delay);
        if (isLoss) {
          await this.#registerAgain(
            await this.#codec(configuration, this.#offerOf(configuration.model, rows.length)),
            time,
          );
        } else if (error.is("staleConfig")) {
          const { currentConfigId } = error.failure;
          tried.push(configuration.model.configId);
          if (!tried.includes(currentConfigId) || goesOn(changes)) {
            tried.push(currentConfigId);
            configuration = await this.#follow(currentConfigId, time);
          }
          tried.splice(0, tried.length - MAX_TRIED);
        }
      }
    }
  }

  /** Free what it holds, once no call uses it. Keys that it has made are overwritten. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#configurations.clear();
    for (const { key } of this.#ownKeys) {
      key.then(
        (made) => made[Symbol.dispose](),
        () => {},
      );
    }
  }

  // Items

  async #scoreOnce(configuration: Configuration, rows: Rows, time: CallTime, isRepeated: boolean): Promise<ScoredRows> {
    const { model } = configuration;
    const read = model.schema.read(rows);
    if (read.length === 0) {
      return { model, results: [] };
    }
    const codec = await this.#codec(configuration, this.#offerOf(model, read.length));
    const quantized = codec.quantize(read);
    // The user has looked at an expected description: its ranges ask for nothing.
    if (this.#options.expect !== undefined && quantized.isRefused.includes(1)) {
      throw refusal(model, new Map([...read.entries()].filter(([k]) => quantized.isRefused[k])), this.#options.clip);
    }
    await this.#register(codec, time);
    const items = split(quantized, codec.offer.rowsPerItem);
    // Two connections may reach replicas of two versions.
    const results = await pooled(items, isRepeated ? 1 : openItems(model, codec.offer), time, (item, itemTime) =>
      this.#scoreItem(codec, item, itemTime),
    );
    const flat = results.flat();
    return {
      model,
      results: flat.map((result, k) => (quantized.isRefused[k] ? { kind: "refused", row: read[k] } : result)),
    };
  }

  /** Score an item. A reply that fails a check is a result, so that all items are sent. */
  async #scoreItem(codec: RowCodec, item: Quantized, time: CallTime): Promise<RowResult[]> {
    try {
      const reply = await this.#service.score(codec, item, time);
      const { scores, isPlausible } = codec.read(item.rowCount, reply, item.isRefused);
      if (isPlausible) {
        return scores.map((ofRow) => ({ kind: "scored", scores: ofRow }));
      }
      return failures(item.rowCount, replyError());
    } catch (error) {
      if (error instanceof SealserveError && error.is("reply")) {
        return failures(item.rowCount, error);
      }
      throw error;
    }
  }

  // The model

  get #current(): Configuration {
    const { current } = this.#configurations;
    if (current === undefined) {
      throw new Error("the service has not been asked for the model yet");
    }
    return current;
  }

  async #follow(configId: string, time: CallTime): Promise<Configuration> {
    // By its name: the service may have several models by now.
    return this.#configurations.use(configId) ?? this.#ask(this.#current.model.name, configId, time);
  }

  /**
   * Get a description, and the steps that it names, and use it from then on.
   *
   * A replica of another version does not have these steps. If one answers, ask for them again, or
   * for its description.
   */
  async #ask(name: string, configId: string, time: CallTime): Promise<Configuration> {
    let model = await this.#described(name, configId, time);
    for (let changes = 0; ; changes++) {
      try {
        model = await this.#withSteps(model, time);
        this.#checkAlive();
        return this.#configurations.add(model);
      } catch (error) {
        if (!(error instanceof SealserveError && error.is("staleConfig"))) {
          throw error;
        }
        await time.pause(changeDelayMs(changes + 1));
        if (goesOn(changes)) {
          model = await this.#described(name, error.failure.currentConfigId, time);
        }
      }
    }
  }

  async #described(name: string, configId: string, time: CallTime): Promise<Model> {
    const model = modelOf(await this.#service.model(name, configId, time));
    if (name !== "" && model.name !== name) {
      throw parameterError(`the service described model '${model.name}' in place of another one`);
    }
    checkRequirements(model);
    if (this.#options.expect !== undefined) {
      await checkPin(model, this.#options.expect);
    }
    return model;
  }

  async #withSteps(model: Model, time: CallTime): Promise<Model> {
    if (model.stepsId === "") {
      return model;
    }
    const known = this.#configurations.models.find(({ stepsId }) => stepsId === model.stepsId);
    const steps = known?.steps ?? (await this.#steps(model, time));
    const kinds = model.schema.columns.map(({ kind }) => (kind === "string" || kind === "text" ? "text" : "number"));
    const areTheirs = steps.columns.length === kinds.length && steps.columns.every((kind, k) => kind === kinds[k]);
    if (!areTheirs || steps.featureCount !== model.grid.featureCount) {
      throw parameterError(`model '${model.name}': its steps are of other columns or features than it describes`);
    }
    return { ...model, steps };
  }

  async #steps(model: Model, time: CallTime): Promise<Program> {
    const data = await this.#service.steps(model, time);
    if ((await sha256(data)) !== model.stepsId) {
      throw parameterError(`model '${model.name}': its steps do not have the SHA-256 that it describes`);
    }
    return Program.parse(data);
  }

  // Codecs and their keys

  #offerOf(model: Model, rowCount: number): Offer {
    const { layout, seeded, secretKey, streamsRequests } = this.#options;
    return chooseOffer(model, { rowCount, layout, seeded, secretKey, streamsRequests });
  }

  #codec(configuration: Configuration, offer: Offer): Promise<RowCodec> {
    const { clip, seeded, secretKey } = this.#options;
    return configuration.codec(offer, async () => {
      const seal = await loadedSeal();
      const key = secretKey ?? (await this.#ownKey(offer.parameters));
      return RowCodec.of(seal, configuration.model, offer, key, { clip, seeded });
    });
  }

  /** Return the key of a ring, and make it or get it from where it is kept on the first use. */
  #ownKey(ring: Ring): Promise<SecretKey> {
    const known = this.#ownKeys.find((own) => sharesRing(own.ring, ring));
    if (known !== undefined) {
      return known.key;
    }
    const key = this.#options.storedKeys?.keyOf(ring) ?? SecretKey.generate(ring);
    const own = { ring, key };
    this.#ownKeys.push(own);
    key.catch(() => this.#ownKeys.splice(this.#ownKeys.indexOf(own), 1)); // whoever waits for it gets the error
    return key;
  }

  async #register(codec: RowCodec, time: CallTime): Promise<void> {
    const { publicKey } = codec;
    if (publicKey === undefined || this.#registered.has(publicKey.id)) {
      return;
    }
    await this.#registering.get(publicKey.id)?.catch(() => {}); // another call's
    if (!this.#registered.has(publicKey.id)) {
      await this.#upload(codec, time);
    }
  }

  /** Register a key again that the service has lost, unless another call has done so. */
  async #registerAgain(codec: RowCodec, time: CallTime): Promise<void> {
    if (codec.publicKey !== undefined && !(await this.#service.hasKey(codec.publicKey.id, time))) {
      await this.#upload(codec, time);
    }
  }

  async #upload({ publicKey, offer, model }: RowCodec, time: CallTime): Promise<void> {
    if (publicKey === undefined) {
      return;
    }
    const upload = this.#service
      .registerKey(publicKey, offer, model.limits, time)
      .then(() => {
        this.#registered.add(publicKey.id);
      })
      .finally(() => this.#registering.delete(publicKey.id));
    this.#registering.set(publicKey.id, upload);
    await upload;
  }

  #checkAlive(): void {
    if (this.#isDisposed) {
      throw new SealserveError({ kind: "disposed" }, "the client has been disposed of: make another one");
    }
  }
}

function openItems({ limits }: Model, { cost }: Offer): number {
  const fitting = Math.floor(limits.windowBytes / cost.heldBytes);
  return Math.max(1, Math.min(limits.maxOpenItems, fitting, MAX_PARALLEL));
}

function failures(rowCount: number, error: SealserveError): RowResult[] {
  return Array.from({ length: rowCount }, () => ({ kind: "failed", error }));
}
