/**
 * StoredKeys: secret keys that stay in a browser, so that a page's next visit needs no new ones.
 */

import { SealserveError, unsupportedError } from "./errors.ts";
import { sha256, webCrypto } from "./he/digest.ts";
import { checkRing, type Ring } from "./he/parameters.ts";
import { SecretKey, secretBytes, secretKeyOf } from "./he/secret-key.ts";

const VERSION = 1;
const KEYS = "keys";
const WRAPPERS = "wrappers";
const WRAPPER = "aes-gcm";
const IV_BYTES = 12;

/** What is kept of a secret key. */
interface KeyRecord {
  /** The secret key, encrypted. */
  readonly sealed: ArrayBuffer;
  readonly iv: Uint8Array<ArrayBuffer>;
  /** The public encryption key, so that a service keeps one for all visits. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
  /** When the key was made, in milliseconds since 1970. */
  readonly created: number;
}

/**
 * Secret keys of this origin, one for each ring. They are in IndexedDB, encrypted by a key of
 * WebCrypto (AES-GCM, 256 bits) that cannot be extracted. Whoever copies the records alone can read
 * none. Scripts of this origin can use the keys, and whoever has the browser's whole profile has
 * what they need to read them.
 *
 * Clients with these keys have one id at the service for all visits. {@link StoredKeys.clear} them
 * from time to time, as you would make any secret key anew.
 */
export class StoredKeys {
  readonly #database: IDBDatabase;
  readonly #wrapper: CryptoKey;

  private constructor(database: IDBDatabase, wrapper: CryptoKey) {
    this.#database = database;
    this.#wrapper = wrapper;
  }

  /**
   * Open the keys of this origin.
   *
   * @param name of the database.
   * @throws SealserveError of kind "unsupported": the platform has no IndexedDB, or does not let
   * this page use it; or of kind "storageFull".
   */
  static async open(name: string = "sealserve"): Promise<StoredKeys> {
    const made = await webCrypto().generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
    const database = await openDatabase(name);
    try {
      return new StoredKeys(database, await keptOrAdded(database, WRAPPERS, WRAPPER, made));
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /**
   * Return the key of a ring, and make and keep one if there is none.
   *
   * @throws SealserveError of kind "storageFull", "unsupported", or "secretKey": what is kept is
   * damaged.
   */
  async keyOf(ring: Ring): Promise<SecretKey> {
    checkRing("a secret key", ring);
    const id = `${ring.polyModulusDegree}: ${ring.primes.join(", ")}`;
    const known = await keptOrAdded<KeyRecord>(this.#database, KEYS, id);
    if (known !== undefined) {
      return this.#opened(ring, id, known);
    }
    const key = await SecretKey.generate(ring);
    const record = await this.#sealed(id, key);
    const kept = await keptOrAdded(this.#database, KEYS, id, record);
    if (kept === record) {
      return key;
    }
    key[Symbol.dispose](); // another tab was faster
    return this.#opened(ring, id, kept);
  }

  /** Forget all keys. Clients that have one go on with it. */
  async clear(): Promise<void> {
    await transacted(this.#database, KEYS, (store) => store.clear());
  }

  /** Close the database. Keys that it has returned stay usable. */
  [Symbol.dispose](): void {
    this.#database.close();
  }

  async #sealed(id: string, key: SecretKey): Promise<KeyRecord> {
    const publicKey = await key.publicKey;
    const created = key.created.getTime();
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
    const secret = secretBytes(key);
    try {
      const sealed = await webCrypto().encrypt(algorithm(iv, id, created, publicKey.id), this.#wrapper, secret);
      return { sealed, iv, publicKey: publicKey.data, created };
    } finally {
      secret.fill(0);
    }
  }

  async #opened(ring: Ring, id: string, { sealed, iv, publicKey: data, created }: KeyRecord): Promise<SecretKey> {
    let secret: Uint8Array | undefined;
    try {
      const publicKey = { data, id: await sha256(data) };
      secret = new Uint8Array(
        await webCrypto().decrypt(algorithm(iv, id, created, publicKey.id), this.#wrapper, sealed),
      );
      return await secretKeyOf(ring, secret, new Date(created), publicKey);
    } catch (error) {
      if (error instanceof SealserveError && error.is("unsupported")) {
        throw error;
      }
      // The cause may quote the key: do not chain it.
      throw new SealserveError(
        { kind: "secretKey" },
        "a stored secret key is damaged: forget it with StoredKeys.clear, and connect again",
      );
    } finally {
      secret?.fill(0);
    }
  }
}

/** The encryption of a key, which holds for its ring, time and public key only. */
function algorithm(iv: Uint8Array<ArrayBuffer>, id: string, created: number, publicKeyId: string): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData: new TextEncoder().encode(`${id}; ${created}; ${publicKeyId}`) };
}

async function openDatabase(name: string): Promise<IDBDatabase> {
  try {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(KEYS);
      request.result.createObjectStore(WRAPPERS);
    };
    const database = await new Promise<IDBDatabase>((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    database.onversionchange = () => database.close(); // a user deletes it
    return database;
  } catch (error) {
    throw storageError(error);
  }
}

/**
 * Return the value of a key, or add one in the same transaction, so that tabs that do so at the same
 * time agree.
 */
async function keptOrAdded<T>(database: IDBDatabase, store: string, key: string): Promise<T | undefined>;
async function keptOrAdded<T>(database: IDBDatabase, store: string, key: string, added: T): Promise<T>;
async function keptOrAdded<T>(database: IDBDatabase, store: string, key: string, added?: T): Promise<T | undefined> {
  let found: T | undefined;
  await transacted(database, store, (values) => {
    const request: IDBRequest<T | undefined> = values.get(key);
    request.onsuccess = () => {
      found = request.result ?? added;
      if (request.result === undefined && added !== undefined) {
        values.add(added, key);
      }
    };
  });
  return found;
}

/** Run a transaction on a store, and wait until it is on the disk. */
async function transacted(
  database: IDBDatabase,
  name: string,
  operation: (store: IDBObjectStore) => void,
): Promise<void> {
  try {
    const transaction = database.transaction(name, "readwrite");
    await new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      operation(transaction.objectStore(name));
    });
  } catch (error) {
    throw storageError(error);
  }
}

function storageError(error: unknown): SealserveError {
  if (error instanceof DOMException && error.name === "QuotaExceededError") {
    return new SealserveError(
      { kind: "storageFull" },
      "the browser's storage is full: free some, or connect without storedKeys",
      { cause: error },
    );
  }
  return unsupportedError(
    "indexedDB",
    "this page cannot use IndexedDB, as in some private windows: connect without storedKeys",
    error,
  );
}
