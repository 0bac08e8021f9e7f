/** Predictions from Chromium, through Envoy, of a live service: in the page and in a Worker. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import type { LayoutChoice } from "../../src/index.ts";
import { content } from "../live/service.ts";
import { launched, policy, type Site, served } from "./chromium.ts";
import type { Done } from "./client.ts";
import type { SentJob } from "./page.ts";

interface Case {
  readonly model: string;
  readonly rows: string;
  readonly featureCount: number;
  readonly labels: readonly number[];
  readonly layouts: readonly LayoutChoice[];
  readonly isPrivate: boolean;
  /** The most that the median call of a row may take. */
  readonly mostMilliseconds?: number;
}

interface Content {
  readonly address: string;
  /** The port of the pages, whose origin Envoy knows. */
  readonly sitePort: number;
  readonly cases: readonly Case[];
  /** How many rows are predicted one by one while memory stays flat. */
  readonly rowCount: number;
}

const { address, sitePort, cases, rowCount } = content<Content>();
const baseUrl = `http://${address}`;
const MEMORY_ROWS = 100;
const MOST_GROWTH = 4 << 20;

let site: Site;
let browser: Browser;
let page: Page;
const said: string[] = [];

before(async () => {
  site = await served(["page.ts", "client.worker.ts"], () => policy(baseUrl), sitePort);
  browser = await launched();
  page = await browser.newPage();
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.goto(`${site.origin}/page.html`);
});
after(async () => {
  await browser.close();
  await site[Symbol.asyncDispose]();
});

/** The first rows of a case, as a job of a page. */
function jobOf({ model, rows, featureCount, labels }: Case, layout: LayoutChoice, count = labels.length): SentJob {
  const bytes = readFileSync(rows).subarray(0, 8 * featureCount * count);
  return { baseUrl, model, layout, featureCount, rows: bytes.toString("base64"), rowsPerCall: count };
}

const predict = (job: SentJob): Promise<Done> => page.evaluate((sent) => sealserve.predict(sent), job);
const predictInWorker = (job: SentJob): Promise<Done> => page.evaluate((sent) => sealserve.predictInWorker(sent), job);

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
}

for (const item of cases) {
  for (const layout of item.layouts) {
    test(`${item.model} in ${layout}s`, async () => {
      const done = await predictInWorker(jobOf(item, layout));
      assert.equal(done.layout, layout);
      assert.equal(done.isPrivate, item.isPrivate);
      assert.deepEqual(done.predictions, item.labels);
      const few = item.labels.slice(0, 20);
      assert.deepEqual((await predict(jobOf(item, layout, few.length))).predictions, few, "in the page itself");
    });
  }

  test(`${item.model} one by one and in a stream`, async (context) => {
    const labels = item.labels.slice(0, 100);
    const job = jobOf(item, "row", labels.length);
    const single = await predictInWorker({ ...job, rowsPerCall: 1 });
    assert.deepEqual(single.predictions, labels);
    const milliseconds = median(single.milliseconds.slice(1)); // the first one registers a key
    context.diagnostic(`${item.model}: ${milliseconds.toFixed(1)} ms a row`);
    assert.ok(milliseconds <= (item.mostMilliseconds ?? Number.POSITIVE_INFINITY), `${milliseconds} ms a row`);
    assert.deepEqual((await predictInWorker({ ...job, rowsPerCall: "stream" })).predictions, labels);
  });
}

test("a key that is kept is the same one at the service", async () => {
  const [item] = cases.filter(({ isPrivate }) => isPrivate);
  const uploads: (string | undefined)[] = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/PutKey")) {
      uploads.push(request.postDataBuffer()?.toString("base64"));
    }
  });
  for (let visit = 0; visit < 2; visit++) {
    const job = { ...jobOf(item, "row", 1), stored: "live" };
    assert.deepEqual((await predict(job)).predictions, item.labels.slice(0, 1));
  }
  const [first] = uploads;
  assert.ok(first);
  assert.deepEqual(uploads, [first, first]);
});

test(`memory is flat over ${rowCount} rows`, { timeout: 3_600_000 }, async (context) => {
  const item = cases[0];
  const session = await page.context().newCDPSession(page);
  const used = async () => {
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize, backingStorageSize } = await session.send("Runtime.getHeapUsage");
    return usedSize + backingStorageSize; // of objects, and of arrays and WebAssembly
  };
  const job = { ...jobOf(item, "row", MEMORY_ROWS), rowsPerCall: 1 };
  await predict(job);
  await predict(job);
  const before_ = await used();
  for (let count = 0; count < rowCount; count += MEMORY_ROWS) {
    assert.deepEqual((await predict(job)).predictions, item.labels.slice(0, MEMORY_ROWS));
  }
  const growth = (await used()) - before_;
  context.diagnostic(`${growth} B more than before ${rowCount} rows`);
  assert.ok(growth < MOST_GROWTH, `${growth} B`);
});

test("the console is empty", () => {
  assert.deepEqual(said, []);
});
