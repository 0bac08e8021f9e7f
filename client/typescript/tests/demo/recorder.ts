/** Recorder: stands between Chromium and the demo page, and keeps what passes, whoever sends it. */

import { createServer, type IncomingHttpHeaders, request as send } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** A request of the browser, of the page or of its Worker, and the headers of the response. */
export interface Recorded {
  readonly path: string;
  readonly body: Buffer;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

/** What {@link recorder} returns. */
export interface Recorder extends AsyncDisposable {
  readonly url: string;
  readonly requests: Recorded[];
  /** Where calls go instead: HOST:PORT, without the paths of the modes; undefined for the page's own services. */
  otherService: string | undefined;
  /** Paths that are answered by 404. */
  missing: RegExp | undefined;
}

/** Forward requests to an address, and record them. */
export async function recorder(target: string): Promise<Recorder> {
  const requests: Recorded[] = [];
  const server = createServer(async (request, response) => {
    const path = request.url ?? "/";
    const body = await buffer(request);
    if (state.missing?.test(path)) {
      response.writeHead(404).end();
      return;
    }
    const other = path.includes("/sealserve.v1.") ? state.otherService : undefined;
    const [host, port] = (other ?? target).split(":");
    const forwarded = send({
      host,
      port,
      path: other === undefined ? path : path.replace(/^\/\w+/, ""),
      method: request.method,
      headers: request.headers,
    });
    forwarded.on("response", (answer) => {
      requests.push({ path, body, status: answer.statusCode ?? 0, headers: answer.headers });
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    forwarded.on("error", () => response.destroy());
    forwarded.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const state: Recorder = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    requests,
    otherService: undefined,
    missing: undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return state;
}
