/** Wire: the calls that a client makes, as the browser sends them. */

/** A call that has ended. */
export interface Call {
  /** The body of the request. */
  readonly sent: Uint8Array;
  readonly receivedBytes: number;
  /** In milliseconds, of performance.now(). */
  readonly began: number;
  readonly ended: number;
}

/** Makes the calls of one client, and notes them down. */
export class Wire {
  /** The calls since {@link begin}. */
  readonly calls: Call[] = [];
  /** The bytes of the request that registers a public key; 0 if there was none. */
  keyBytes = 0;

  /** Forget the calls before. */
  begin(): void {
    this.calls.length = 0;
  }

  /** What a transport calls instead of the browser's own fetch. */
  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const sent = init?.body instanceof Uint8Array ? init.body : new Uint8Array();
    const began = performance.now();
    const response = await fetch(input, init);
    const body = await response.arrayBuffer();
    this.calls.push({ sent, receivedBytes: body.byteLength, began, ended: performance.now() });
    if (String(input).endsWith("/PutKey")) {
      this.keyBytes = sent.length;
    }
    const { status, statusText, headers } = response;
    return new Response(body, { status, statusText, headers });
  };
}
