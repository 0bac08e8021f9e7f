/** Counts of SEAL's objects, and of the memory of WebAssembly: a test that imports this first sees all. */

import { loadedSeal } from "../../src/he/seal.ts";

// node-seal's exports have short names of the compiler's choice.
let memory: WebAssembly.Memory | undefined;
const { instantiate, instantiateStreaming } = WebAssembly;

function kept(result: WebAssembly.WebAssemblyInstantiatedSource): WebAssembly.WebAssemblyInstantiatedSource {
  const exports: readonly WebAssembly.ExportValue[] = Object.values(result.instance.exports);
  memory = exports.find((value) => value instanceof WebAssembly.Memory);
  return result;
}
WebAssembly.instantiate = (async (bytes: BufferSource, imports?: WebAssembly.Imports) =>
  kept(await instantiate(bytes, imports))) as typeof WebAssembly.instantiate;
WebAssembly.instantiateStreaming = async (source, imports) => kept(await instantiateStreaming(source, imports));

/** Return how many bytes WebAssembly has. They never become fewer. */
export function heapBytes(): number {
  if (memory === undefined) {
    throw new Error("SEAL has not been loaded, or exports no memory");
  }
  return memory.buffer.byteLength;
}

/**
 * Return a function that says how many objects of SEAL are alive that were not when this was called.
 *
 * Embind makes each by one of two functions, with a property `$$`.
 */
export async function countObjects(): Promise<() => number> {
  const seal = await loadedSeal();
  const { create, defineProperties } = Object;
  const isHandle = (properties: PropertyDescriptorMap | undefined) => properties !== undefined && "$$" in properties;
  let count = 0;
  Object.create = (prototype: object | null, properties?: PropertyDescriptorMap & ThisType<unknown>) => {
    count += Number(isHandle(properties));
    return properties === undefined ? create(prototype) : create(prototype, properties);
  };
  Object.defineProperties = (object, properties) => {
    count += Number(isHandle(properties));
    return defineProperties(object, properties);
  };
  let base: { delete: (this: object) => void } = seal.Modulus.prototype;
  while (!Object.hasOwn(base, "delete")) {
    base = Object.getPrototypeOf(base);
  }
  const { delete: free } = base;
  base.delete = function () {
    count--;
    free.call(this);
  };
  return () => count;
}
