/**
 * Configurations: the descriptions of one model that a client knows, with the codecs for each.
 *
 * While a service is updated, some of its replicas serve the old version of a model and some the
 * new one. A client that knows both needs no call to go from one to the other.
 */

import type { RowCodec } from "./codec.ts";
import type { Model, Offer } from "./protocol/model.ts";

// How many descriptions are known. A hostile service could name new ones without end.
const MAX_CONFIGURATIONS = 8;
// How many of them may have published steps, each of which may take hundreds of megabytes.
const MAX_WITH_STEPS = 2;

/** A description of the model, and the codecs that have been made for it. */
export class Configuration {
  readonly model: Model;
  readonly #codecs = new Map<Offer, Promise<RowCodec>>();
  #users = 0;
  #isDropped = false;

  constructor(model: Model) {
    this.model = model;
  }

  /** Return the codec of an offer of the model, and make it on the first use. */
  codec(offer: Offer, make: () => Promise<RowCodec>): Promise<RowCodec> {
    const known = this.#codecs.get(offer);
    if (known !== undefined) {
      return known;
    }
    const made = make();
    this.#codecs.set(offer, made);
    made.catch(() => this.#codecs.delete(offer)); // whoever waits for it gets the error
    return made;
  }

  /** Keep the codecs while an operation runs, though the configuration is dropped meanwhile. */
  async use<T>(operation: () => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await operation();
    } finally {
      this.#users--;
      this.#freeIfUnused();
    }
  }

  /** Free the codecs, once no operation uses them. */
  drop(): void {
    this.#isDropped = true;
    this.#freeIfUnused();
  }

  #freeIfUnused(): void {
    if (this.#isDropped && this.#users === 0) {
      for (const codec of this.#codecs.values()) {
        codec.then(
          (made) => made[Symbol.dispose](),
          () => {},
        );
      }
      this.#codecs.clear();
    }
  }
}

/** The configurations that a client knows, by their ids. */
export class Configurations {
  #current: Configuration | undefined;
  readonly #known = new Map<string, Configuration>(); // in the order of their last use

  /** The one to encrypt for; undefined until the service has described the model. */
  get current(): Configuration | undefined {
    return this.#current;
  }

  /** The descriptions that are known. */
  get models(): readonly Model[] {
    return [...this.#known.values()].map(({ model }) => model);
  }

  /** Make the configuration of an id the current one; the current one stays if it is not known. */
  use(configId: string): Configuration | undefined {
    const known = this.#known.get(configId);
    if (known !== undefined) {
      this.#known.delete(configId);
      this.#known.set(configId, known);
      this.#current = known;
    }
    return known;
  }

  /** Make a description the current one, in place of the one that was used least recently. */
  add(model: Model): Configuration {
    const known = this.use(model.configId); // an id names one description
    if (known !== undefined) {
      return known;
    }
    const withSteps = this.models.filter(({ steps }) => steps !== undefined);
    if (model.steps !== undefined && withSteps.length >= MAX_WITH_STEPS) {
      this.#drop(withSteps[0].configId);
    } else if (this.#known.size >= MAX_CONFIGURATIONS) {
      this.#drop(this.models[0].configId);
    }
    const added = new Configuration(model);
    this.#known.set(model.configId, added);
    this.#current = added;
    return added;
  }

  /** Forget all, and free their codecs. */
  clear(): void {
    for (const { configId } of this.models) {
      this.#drop(configId);
    }
    this.#current = undefined;
  }

  #drop(configId: string): void {
    this.#known.get(configId)?.drop();
    this.#known.delete(configId);
  }
}
