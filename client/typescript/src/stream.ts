/** Streams: rows as they come, several items of them at a time, and results in order. */

import type { ScoredRow } from "./client.ts";
import { SealserveError } from "./errors.ts";
import type { Row } from "./protocol/schema.ts";

/** What a stream yields for a row: its scores and prediction, or why there are none. */
export type Streamed =
  | { readonly index: number; readonly scored: ScoredRow; readonly error?: undefined }
  | { readonly index: number; readonly scored?: undefined; readonly error: SealserveError };

/** Scores the rows of an item: a result or an error for each. */
export type ScoreItem = (rows: readonly Row[], signal: AbortSignal) => Promise<readonly (ScoredRow | SealserveError)[]>;

/** What happens next on a stream: a row has come, or the first open item has ended. */
type Event =
  | { readonly kind: "row"; readonly next: IteratorResult<Row> }
  | { readonly kind: "end"; readonly results: readonly Streamed[] };

/**
 * Yield the results of rows.
 *
 * @param rowsPerItem how many rows to put into an item.
 * @param parallel how many items are open at a time.
 */
export async function* streamed(
  rows: AsyncIterable<Row> | Iterable<Row>,
  rowsPerItem: number,
  parallel: number,
  score: ScoreItem,
): AsyncGenerator<Streamed> {
  const source = iteratorOf(rows);
  const left = new AbortController();
  const open: Promise<readonly Streamed[]>[] = [];
  let item: Row[] = [];
  let first = 0;
  let fault: { readonly error: unknown } | undefined;
  let next: Promise<Event> | undefined;
  const begin = () => {
    const results = scored(item, first, left.signal, score);
    results.catch(() => {}); // it is thrown when its turn comes
    open.push(results);
    first += item.length;
    item = [];
  };
  try {
    let hasMore = true;
    while (hasMore || open.length > 0) {
      const takesMore = hasMore && open.length < parallel;
      if (takesMore) {
        next ??= taken(source);
      }
      const waiting: Promise<Event>[] = takesMore && next !== undefined ? [next] : [];
      if (open.length > 0) {
        waiting.push(open[0].then((results) => ({ kind: "end", results })));
      }
      const event = await Promise.race(waiting).catch((error: unknown) => {
        if (error instanceof SourceFault) {
          fault = { error: error.cause };
          return { kind: "row", next: { done: true, value: undefined } } satisfies Event;
        }
        throw error;
      });
      if (event.kind === "end") {
        open.shift();
        yield* event.results;
        continue;
      }
      next = undefined;
      if (event.next.done) {
        hasMore = false;
      } else {
        item.push(event.next.value);
      }
      if (item.length > 0 && (item.length >= rowsPerItem || !hasMore)) {
        begin();
      }
    }
    if (fault !== undefined) {
      throw fault.error;
    }
  } finally {
    left.abort();
    next?.catch(() => {});
    // A source that is waiting for its next row would end only then: nobody waits for that.
    Promise.resolve(source.return?.()).catch(() => {});
  }
}

/** What iterating over a caller's rows has thrown. */
class SourceFault extends Error {}

async function taken(source: Iterator<Row> | AsyncIterator<Row>): Promise<Event> {
  try {
    return { kind: "row", next: await source.next() };
  } catch (error) {
    throw new SourceFault("", { cause: error });
  }
}

/** Score an item. Errors of an item become those of its rows; errors of the client are thrown. */
async function scored(
  rows: readonly Row[],
  first: number,
  signal: AbortSignal,
  score: ScoreItem,
): Promise<readonly Streamed[]> {
  const results = await score(rows, signal).catch((error: unknown) => {
    if (error instanceof SealserveError && isOfItem(error)) {
      return rows.map(() => error);
    }
    throw error;
  });
  return results.map((result, k) =>
    result instanceof SealserveError ? { index: first + k, error: result } : { index: first + k, scored: result },
  );
}

/** Tell whether an item has failed, while the next one may succeed. */
function isOfItem(error: SealserveError): boolean {
  return error.is(
    "input",
    "featureCount",
    "featureName",
    "notFinite",
    "outOfRange",
    "offGrid",
    "malformedCiphertext",
    "inputMismatch",
    "limitExceeded",
    "itemTimeout",
    "internal",
    "service",
  );
}

function iteratorOf(rows: AsyncIterable<Row> | Iterable<Row>): Iterator<Row> | AsyncIterator<Row> {
  return Symbol.asyncIterator in rows ? rows[Symbol.asyncIterator]() : rows[Symbol.iterator]();
}
