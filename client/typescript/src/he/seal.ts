/** SEAL itself: the only module that imports node-seal. */

import initialize, { type ClassHandle, type MainModule, type SEALContext } from "node-seal";
import { parameterError, unsupportedError } from "../errors.ts";
import { webCrypto } from "./digest.ts";
import type { Ring } from "./parameters.ts";

export type { Decryptor, Encryptor, SEALContext, SecretKey as SealSecretKey } from "node-seal";

/** SEAL, compiled to WebAssembly. */
export type Seal = MainModule;

/**
 * SEAL refused an operation. Its own exceptions are no errors, and say nothing that may be shown.
 */
export class SealRefusal extends Error {
  override readonly name = "SealRefusal";
}

/** How to load SEAL. */
export interface SealOptions {
  /** The address of node-seal's WebAssembly, where a bundler has moved it. */
  readonly wasmUrl?: string | URL;
}

let loading: Promise<Seal> | undefined;

/**
 * Load SEAL. Only the first call does; a page may make it early, so that the first prediction does
 * not wait.
 *
 * @throws SealserveError of kind "unsupported": the platform cannot run it, or the file cannot be
 * fetched.
 */
export async function loadSeal(options: SealOptions = {}): Promise<void> {
  await loadedSeal(options);
}

/** Return SEAL, and load it first if that has not been done: see {@link loadSeal}. */
export async function loadedSeal(options: SealOptions = {}): Promise<Seal> {
  webCrypto(); // no key could be named without it
  loading ??= load(options).catch((error: unknown) => {
    loading = undefined; // fetching it may succeed later
    throw unsupportedError(
      "webAssembly",
      "SEAL cannot be loaded: this platform needs WebAssembly with exceptions and BigInt, a policy that allows it " +
        "('wasm-unsafe-eval'), and access to node-seal's .wasm file",
      error,
    );
  });
  return loading;
}

async function load({ wasmUrl }: SealOptions): Promise<Seal> {
  const printErr = () => {}; // the error is thrown
  return initialize({ printErr, ...(wasmUrl === undefined ? {} : { locateFile: () => String(wasmUrl) }) });
}

/** Takes an object of SEAL, frees it when the operation ends, and returns it. */
export type Keep = <T extends ClassHandle>(object: T) => T;

/**
 * Run an operation of SEAL and free every object that it keeps, whatever happens.
 *
 * @throws SealRefusal: SEAL has thrown something.
 */
export function scoped<R>(operation: (keep: Keep) => R): R {
  const kept: ClassHandle[] = [];
  try {
    return operation((object) => {
      kept.push(object);
      return object;
    });
  } catch (error) {
    throw error instanceof Error ? error : new SealRefusal();
  } finally {
    for (const object of kept.reverse()) {
      object.delete();
    }
  }
}

/**
 * Build the context of parameters. The caller frees it.
 *
 * @param plainModulus t; for keys it is 2, whatever the model's is.
 * @throws SealserveError of kind "parameter": SEAL refuses the parameters.
 */
export function buildContext(seal: Seal, name: string, ring: Ring, plainModulus: bigint): SEALContext {
  const context = scoped((keep) => {
    const parameters = keep(new seal.EncryptionParameters(seal.SchemeType.bfv));
    parameters.setPolyModulusDegree(ring.polyModulusDegree);
    const primes = keep(new seal.VectorModulus());
    for (const prime of ring.primes) {
      const modulus = keep(new seal.Modulus(prime));
      // A context of composite ones is made or not, as the roots happen to be that SEAL tries.
      if (!modulus.isPrime()) {
        throw parameterError(`${name}: ${prime} is no prime`);
      }
      primes.push_back(modulus);
    }
    parameters.setCoeffModulus(primes);
    parameters.setPlainModulus(keep(new seal.Modulus(plainModulus)));
    return new seal.SEALContext(parameters, true, seal.SecLevelType.tc128);
  });
  if (!context.parametersSet()) {
    context.delete();
    throw parameterError(`${name}: SEAL refuses these encryption parameters`);
  }
  return context;
}

/** Return the parms_id of keys, 32 bytes. */
export function keyParmsId(context: SEALContext): Uint8Array {
  return scoped((keep) => bytesOf(keep(context.keyParmsId()).values()));
}

/**
 * Return the parms_id of each level that a ciphertext can have: first the one of all data primes.
 */
export function dataParmsIds(context: SEALContext): Uint8Array[] {
  return scoped((keep) => {
    const ids: Uint8Array[] = [];
    for (let level = keep(context.firstContextData()); ; level = keep(level.nextContextData())) {
      ids.push(bytesOf(keep(level.parmsId()).values()));
      if (level.chainIndex() === 0) {
        return ids;
      }
    }
  });
}

function bytesOf(words: BigUint64Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength).slice();
}
