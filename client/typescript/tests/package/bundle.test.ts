/** Bundles: they hold what a page uses of the package, and nothing that only Node has. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Bundle a program for browsers; return its bytes and the files of which something is left. */
async function bundled(program: string): Promise<{ readonly size: number; readonly files: readonly string[] }> {
  const { outputFiles, metafile } = await build({
    stdin: { contents: program, resolveDir: ROOT, loader: "ts" },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external: ["module"], // node-seal imports it in Node only
    write: false,
    metafile: true,
  });
  const [output] = Object.values(metafile.outputs);
  const files = Object.entries(output.inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  return { size: outputFiles[0].contents.length, files: files.map(([path]) => path) };
}

test("what is not used is not there", async () => {
  const ofErrors = await bundled(`import { SealserveError } from "./src/index.ts"; console.log(SealserveError)`);
  assert.deepEqual(
    ofErrors.files.filter((path) => path !== "<stdin>"),
    ["src/errors.ts"],
  );
  const ofClients = await bundled(`import { Client } from "./src/index.ts"; console.log(Client)`);
  assert.ok(ofClients.files.includes("node_modules/node-seal/dist/seal_throws.js"));
  for (const unused of ["src/stored-keys.ts", "src/worker.ts", "src/secret-key-access.ts"]) {
    assert.ok(!ofClients.files.includes(unused), unused);
  }
  assert.ok(ofErrors.size < 2000 && ofClients.size > 50 * ofErrors.size, `${ofErrors.size}, ${ofClients.size}`);
});

test("nothing is needed that only Node has", async () => {
  const whole = await bundled(`export * from "./src/index.ts"`); // it fails to resolve node:...
  assert.ok(whole.files.every((path) => !path.includes("connect-node")));
});
