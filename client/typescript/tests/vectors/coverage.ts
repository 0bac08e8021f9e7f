/** Which files of vectors tests name: the SDK is proved by all. */

import { list } from "./files.ts";

/** What a service proves, and a client does not read. */
const OF_SERVICES = ["public_keys.json"];
/** No vectors: what makes and checks them, and files that others name. */
const OTHERS = ["README.md", "check", "make", "test_vectors.py", "__init__.py", "__pycache__", "ciphertexts"];

/** Return the files of which none of these tests is. */
export function untestedBy(tests: readonly string[]): string[] {
  const vectors = list(".").filter((name) => !OTHERS.includes(name) && !OF_SERVICES.includes(name));
  return vectors.filter((name) => !tests.some((test) => test.startsWith(name)));
}
