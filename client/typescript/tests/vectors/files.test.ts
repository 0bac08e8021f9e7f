/** Every file of the vectors is tested, or it is said why it is not. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { untestedBy } from "./coverage.ts";

const TESTS = ["he.test.ts", "input.test.ts", "items.test.ts", "outputs.test.ts"];

test("every file of vectors is tested", () => {
  const sources = TESTS.map((name) => readFileSync(new URL(name, import.meta.url), "utf8")).join("\n");
  const names = Array.from(sources.matchAll(/\btest\(["`]([^"`]*)/g), ([, name]) => name);
  assert.deepEqual(untestedBy(names), []);
  assert.ok(untestedBy([]).length >= 12);
});
