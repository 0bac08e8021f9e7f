/** The vectors in Chromium: the tests that Node runs, in a Worker. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { untestedBy } from "../vectors/coverage.ts";
import { list } from "../vectors/files.ts";
import { launched, policy, served } from "./chromium.ts";
import type { Outcome } from "./shims/test.ts";

test("the vectors", async (context) => {
  await using site = await served(["page.ts", "vectors.worker.ts"], () => policy(""));
  await using browser = await launched();
  const page = await browser.newPage();
  const said: string[] = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.goto(`${site.origin}/page.html`);
  const outcomes = await page.evaluate(
    () =>
      new Promise<readonly Outcome[]>((resolve, reject) => {
        const worker = new Worker("/vectors.worker.js", { type: "module" });
        worker.onerror = (event) => reject(new Error(event.message));
        worker.onmessage = ({ data }) => (typeof data === "string" ? worker.postMessage("begin") : resolve(data));
      }),
  );
  for (const { name, error } of outcomes) {
    await context.test(name, () => assert.equal(error, undefined));
  }
  assert.deepEqual(untestedBy(outcomes.map(({ name }) => name)), []);
  assert.ok(outcomes.length > list("steps").length + list("items").length);
  assert.deepEqual(said, []);
});
