/** What stands in the place of node:assert/strict in a browser: what the vectors' tests use of it. */

type Expected = (error: unknown) => boolean;
type ErrorClass = abstract new (...values: never) => unknown;

class AssertionError extends Error {
  override readonly name = "AssertionError";
}

function ok(value: unknown, message: unknown = "not true"): asserts value {
  if (!value) {
    throw new AssertionError(String(message));
  }
}

function equal(found: unknown, expected: unknown, message = ""): void {
  ok(Object.is(found, expected), `${message} ${String(found)} is not ${String(expected)}`);
}

function deepEqual(found: unknown, expected: unknown, message = ""): void {
  ok(areEqual(found, expected), `${message} ${shown(found)} is not ${shown(expected)}`);
}

function throws(operation: () => unknown, expected: Expected | ErrorClass, message?: string): void {
  let thrown: unknown;
  try {
    operation();
  } catch (error) {
    thrown = error;
  }
  check(thrown, expected, message);
}

async function rejects(
  operation: Promise<unknown> | (() => Promise<unknown>),
  expected: Expected | ErrorClass,
  message?: string,
): Promise<void> {
  let thrown: unknown;
  try {
    await (typeof operation === "function" ? operation() : operation);
  } catch (error) {
    thrown = error;
  }
  check(thrown, expected, message);
}

export default { ok, equal, deepEqual, throws, rejects };

function check(thrown: unknown, expected: Expected | ErrorClass, message = ""): void {
  ok(thrown !== undefined, `${message} nothing was thrown`);
  const isClass = expected === RangeError;
  const isExpected = isClass ? thrown instanceof expected : (expected as Expected)(thrown);
  ok(isExpected, `${message} another error was thrown: ${String(thrown)}`);
}

/** Compare values, arrays, typed arrays and objects with their prototypes, as strict deepEqual does. */
function areEqual(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) {
    return true;
  }
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return false;
  }
  const [keys, others] = [Object.keys(one), Object.keys(other)];
  return (
    Object.getPrototypeOf(one) === Object.getPrototypeOf(other) &&
    keys.length === others.length &&
    keys.every((key) => Object.hasOwn(other, key) && areEqual(Reflect.get(one, key), Reflect.get(other, key)))
  );
}

function shown(value: unknown): string {
  const text = JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}n` : part));
  return String(text).slice(0, 500);
}
