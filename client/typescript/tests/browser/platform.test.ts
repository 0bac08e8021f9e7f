/** Pages in Chromium that lack something, and keys that stay in its storage. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { launched, policy, type Site, served } from "./chromium.ts";
import type {} from "./page.ts";

const POLICIES: Readonly<Record<string, string>> = {
  "/no-wasm.html": policy("", { script: "'self'" }),
  "/no-worker.html": policy("", { worker: "'none'" }),
};

let site: Site;
let browser: Browser;

before(async () => {
  site = await served(["page.ts", "client.worker.ts"], (path) => POLICIES[path] ?? policy(""));
  browser = await launched();
});
after(async () => {
  await browser.close();
  await site[Symbol.asyncDispose]();
});

async function opened(context: BrowserContext, path = "/page.html", origin = site.origin): Promise<Page> {
  const page = await context.newPage();
  await page.goto(origin + path);
  return page;
}

/** Let a test have a context of its own: storage, and scripts that run before a page's. */
async function inContext(use: (context: BrowserContext) => Promise<void>): Promise<void> {
  const context = await browser.newContext();
  try {
    await use(context);
  } finally {
    await context.close();
  }
}

test("a page that lacks nothing", () =>
  inContext(async (context) => {
    const page = await opened(context);
    assert.equal(await page.evaluate(() => sealserve.makeKey()), "");
    assert.equal(await page.evaluate(() => sealserve.startWorker("/client.worker.js")), "");
    assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "");
  }));

test("no WebAssembly, or one that is too old", () =>
  inContext(async (context) => {
    await context.addInitScript(() => Reflect.deleteProperty(globalThis, "WebAssembly"));
    assert.equal(await (await opened(context)).evaluate(() => sealserve.loadSeal()), "webAssembly");
  }));

test("a policy that forbids WebAssembly, and a file of it that is missing or another", async () => {
  await inContext(async (context) => {
    const page = await opened(context, "/no-wasm.html");
    assert.equal(await page.evaluate(() => sealserve.loadSeal()), "webAssembly");
  });
  for (const answer of [{ status: 404 }, { body: "no WebAssembly", contentType: "application/wasm" }]) {
    await inContext(async (context) => {
      await context.route("**/*.wasm", (route) => route.fulfill(answer));
      const page = await opened(context);
      assert.equal(await page.evaluate(() => sealserve.makeKey()), "webAssembly");
      await context.unroute("**/*.wasm");
      assert.equal(await page.evaluate(() => sealserve.makeKey()), "", "it is fetched again");
    });
  }
});

test("a page without HTTPS", () =>
  inContext(async (context) => {
    const page = await opened(context, "/page.html", `http://plain.example.com:${site.port}`);
    assert.equal(await page.evaluate(() => isSecureContext), false);
    assert.equal(await page.evaluate(() => sealserve.loadSeal()), "webCrypto");
    assert.equal(await page.evaluate(() => sealserve.openKeys("a")), "webCrypto");
  }));

test("a Worker that a policy blocks, or whose file is missing", async () => {
  await inContext(async (context) => {
    const page = await opened(context, "/no-worker.html");
    assert.equal(await page.evaluate(() => sealserve.startWorker("/client.worker.js")), "worker");
    assert.equal(await page.evaluate(() => sealserve.makeKey()), "", "without a Worker, the page can do it");
  });
  await inContext(async (context) => {
    const page = await opened(context);
    assert.equal(await page.evaluate(() => sealserve.startWorker("/missing.js")), "worker");
    assert.equal(await page.evaluate(() => sealserve.startWorker("https://other.example.com/worker.js")), "worker");
  });
});

test("storage that is full", () =>
  inContext(async (context) => {
    const page = await opened(context);
    const session = await context.newCDPSession(page);
    await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin, quotaSize: 1 });
    assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "storageFull");
    await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin });
    assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "", "there is place again");
  }));

test("no storage", () =>
  inContext(async (context) => {
    await context.addInitScript(() => {
      Object.defineProperty(globalThis, "indexedDB", {
        get() {
          throw new DOMException("denied", "SecurityError");
        },
      });
    });
    assert.equal(await (await opened(context)).evaluate(() => sealserve.openKeys("a")), "indexedDB");
  }));

test("a key stays for later visits and other tabs, and clear forgets it", () =>
  inContext(async (context) => {
    const pages = await Promise.all([opened(context), opened(context), opened(context)]);
    const found = await Promise.all(pages.map((page) => page.evaluate(() => sealserve.keptKey("a"))));
    const [first] = found;
    assert.deepEqual(found, [first, first, first], "tabs that begin at the same time have one key");
    await pages[0].reload();
    assert.deepEqual(await pages[0].evaluate(() => sealserve.keptKey("a")), first);
    await pages[0].evaluate(() => sealserve.clearKeys("a"));
    const next = await pages[1].evaluate(() => sealserve.keptKey("a"));
    assert.notEqual(next.id, first.id);
    assert.notEqual(next.secret, first.secret);
  }));

/** Read, and perhaps change, what the database holds: the record of the only key. */
async function changedRecord(page: Page, change: "none" | "sealed" | "publicKey" | "created"): Promise<boolean> {
  return page.evaluate(async (changed) => {
    const wait = <T>(request: IDBRequest<T>) =>
      new Promise<T>((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await wait(indexedDB.open("a"));
    const stores = database.transaction(["keys", "wrappers"], "readwrite");
    const wrapper: CryptoKey = await wait(stores.objectStore("wrappers").get("aes-gcm"));
    const keys = stores.objectStore("keys");
    const [[id], [record]] = [await wait(keys.getAllKeys()), await wait(keys.getAll())];
    if (changed === "created") {
      await wait(keys.put({ ...record, created: record.created + 1 }, id));
    } else if (changed !== "none") {
      new Uint8Array(changed === "sealed" ? record.sealed : record.publicKey.buffer)[200] ^= 1;
      await wait(keys.put(record, id));
    }
    database.close();
    // The header of SEAL's objects is 5e a1 10.
    const sealed = new Uint8Array(record.sealed);
    const isPlain = sealed.some((byte, k) => byte === 0x5e && sealed[k + 1] === 0xa1 && sealed[k + 2] === 0x10);
    return !wrapper.extractable && !isPlain && sealed.length > 16_384;
  }, change);
}

test("what is kept is encrypted by a key that cannot be extracted, and is refused if it was changed", async () => {
  for (const change of ["sealed", "publicKey", "created"] as const) {
    await inContext(async (context) => {
      const page = await opened(context);
      await page.evaluate(() => sealserve.keptKey("a"));
      assert.ok(await changedRecord(page, "none"));
      assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "");
      await changedRecord(page, change);
      assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "secretKey");
      await page.evaluate(() => sealserve.clearKeys("a"));
      assert.equal(await page.evaluate(() => sealserve.keepKey("a")), "");
    });
  }
});
