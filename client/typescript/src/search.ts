/** Binary search in sorted numbers. */

/** Return how many numbers are not above x. */
export function countNotAbove(sorted: ArrayLike<number>, x: number): number {
  return partition(sorted, (value) => value <= x);
}

/** Return how many numbers are below x. */
export function countBelow(sorted: ArrayLike<number>, x: number): number {
  return partition(sorted, (value) => value < x);
}

function partition(sorted: ArrayLike<number>, isBefore: (value: number) => boolean): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(sorted[middle])) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
