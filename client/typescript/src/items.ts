/** Items: how rows are split into them, and how several are sent at a time. */

import type { Quantized } from "./protocol/grid.ts";
import type { CallTime } from "./rpc/call-time.ts";

/** Split rows into items of at most so many. */
export function split({ integers, rowCount, isRefused }: Quantized, rowsPerItem: number): Quantized[] {
  const width = integers.length / rowCount;
  const items: Quantized[] = [];
  for (let first = 0; first < rowCount; first += rowsPerItem) {
    const stop = Math.min(first + rowsPerItem, rowCount);
    items.push({
      integers: integers.subarray(first * width, stop * width),
      rowCount: stop - first,
      isRefused: isRefused.subarray(first, stop),
    });
  }
  return items;
}

/**
 * Run an operation on values, a few at a time, and return the results in order.
 *
 * @throws what the first operation that fails throws; the others are aborted.
 */
export async function pooled<T, R>(
  values: readonly T[],
  most: number,
  time: CallTime,
  operation: (value: T, time: CallTime) => Promise<R>,
): Promise<R[]> {
  if (values.length === 1) {
    return [await operation(values[0], time)];
  }
  const results = new Array<R>(values.length);
  const failed = new AbortController();
  const linked = time.linked(failed.signal);
  let next = 0;
  const worker = async () => {
    while (next < values.length && !failed.signal.aborted) {
      const index = next++;
      try {
        results[index] = await operation(values[index], linked);
        time.progressed();
      } catch (error) {
        failed.abort(error); // the first reason stays
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(most, values.length) }, worker));
  if (failed.signal.aborted) {
    throw failed.signal.reason;
  }
  return results;
}
