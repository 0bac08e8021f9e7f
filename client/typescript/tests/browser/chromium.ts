/** Chromium, and a site for it: bundled programs, the file of node-seal, and the vectors. */

import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { build } from "esbuild";
import { type Browser, chromium } from "playwright-core";

const HERE = new URL("./", import.meta.url);
const NODE_SEAL = new URL("../../node_modules/node-seal/dist/", HERE);
const VECTORS = new URL("../../../../tests/vectors/", HERE);
const TYPES: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };

const PAGE = `<!doctype html>
<html lang="en"><title>A page</title><script type="module" src="/page.js"></script>`;

/** The policy of pages that may do what the SDK needs, and nothing else. */
export function policy(calls: string, { script = "'self' 'wasm-unsafe-eval'", worker = "'self'" } = {}): string {
  return `default-src 'none'; script-src ${script}; worker-src ${worker}; connect-src 'self' ${calls}`;
}

/** Bundle programs of this folder; return their texts by names that end in .js. */
async function bundles(programs: readonly string[]): Promise<Map<string, Uint8Array>> {
  const shim = (name: string) => new URL(`shims/${name}.ts`, HERE).pathname;
  const { outputFiles } = await build({
    entryPoints: programs.map((name) => new URL(name, HERE).pathname),
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external: ["module"],
    ignoreAnnotations: true, // tests have side effects
    outdir: "/",
    write: false,
    alias: { "node:assert/strict": shim("assert"), "node:fs": shim("fs"), "node:test": shim("test") },
  });
  return new Map(outputFiles.map(({ path, contents }) => [path, contents]));
}

/** A site on a port of this machine. */
export interface Site extends AsyncDisposable {
  readonly port: number;
  readonly origin: string;
}

/**
 * Serve programs of this folder, each as NAME.js, and files that they read.
 *
 * @param header the policy for a path; undefined for none.
 * @param port 0 for any.
 */
export async function served(
  programs: readonly string[],
  header: (path: string) => string | undefined,
  port: number = 0,
): Promise<Site> {
  const bundled = await bundles(programs);
  const find = async (path: string): Promise<Uint8Array | undefined> => {
    if (path.endsWith(".html")) {
      return new TextEncoder().encode(PAGE);
    }
    if (path.endsWith(".wasm")) {
      return readFile(new URL(`.${path}`, NODE_SEAL));
    }
    if (path.startsWith("/tests/vectors/")) {
      const url = new URL(`.${path.slice("/tests/vectors".length)}`, VECTORS);
      return path.endsWith("/") ? new TextEncoder().encode(JSON.stringify(await readdir(url))) : readFile(url);
    }
    return bundled.get(path);
  };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const content = await find(pathname).catch(() => undefined);
    const text = header(pathname);
    response.writeHead(content === undefined ? 404 : 200, {
      "Content-Type": TYPES[pathname.split(".").at(-1) ?? ""] ?? "application/octet-stream",
      ...(text === undefined ? {} : { "Content-Security-Policy": text }),
    });
    response.end(content);
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo;
  return {
    port: address.port,
    origin: `http://127.0.0.1:${address.port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Run Chromium without a window. */
export function launched(): Promise<Browser> {
  const executablePath = process.env.SEALSERVE_CHROMIUM;
  if (executablePath === undefined) {
    throw new Error("tests in Chromium are run by pytest: tests/integration/test_browsers.py");
  }
  // A name that is no address of this machine: pages from it have no WebCrypto.
  const args = ["--host-resolver-rules=MAP plain.example.com 127.0.0.1", "--disable-dev-shm-usage"];
  return chromium.launch({ executablePath, args, chromiumSandbox: process.getuid?.() !== 0 });
}
