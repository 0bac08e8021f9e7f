/** Input grid: the declared range of each feature, and the step between neighbours on its grid. */

import { parameterError } from "../errors.ts";
import { roundHalfEven } from "../rounding.ts";

const OFF_GRID = 1e-3; // of a step
const FLOAT32 = 2 ** -22; // relative: four times what a number loses as a float32
const LEAST_FLOAT32 = 2 ** -149;
// Far more than any parameter set has room for.
const MAX_LEVELS = 2 ** 32;

/** Rows on a grid, with a dummy in the place of each row that the grid refuses. */
export interface Quantized {
  /** rowCount x featureCount integers, each 0..levels. */
  readonly integers: Float64Array;
  readonly rowCount: number;
  /** Which rows were refused: 1, else 0. */
  readonly isRefused: Uint8Array;
}

/** What a grid is made of. Lists have one value for all features, or one for each. */
export interface GridDescription {
  readonly featureCount: number;
  readonly minimum: readonly number[];
  readonly maximum: readonly number[];
  readonly step: readonly number[];
  readonly keeps: readonly boolean[];
  /** The number of each feature's group, from 1; 0 for none. Empty if there is no group. */
  readonly group: readonly number[];
  /** Of each group, whether exactly one of its features is at its maximum, and not at most one. */
  readonly exactlyOne: readonly boolean[];
}

/** Why a grid refuses a feature. */
export type FeatureFault = "notFinite" | "outside" | "offGrid";

/** The grid of the features that are quantized and encrypted. */
export class InputGrid {
  readonly featureCount: number;
  readonly minimum: Float64Array;
  readonly maximum: Float64Array;
  readonly step: Float64Array;
  /** Whether all values of a feature lie on the grid: 1, else 0. A value that is off is refused. */
  readonly keeps: Uint8Array;
  readonly group: readonly number[];
  readonly exactlyOne: readonly boolean[];
  /** The greatest integer of each feature. */
  readonly levels: Float64Array;
  /** The distance of neighbours among values that are not off: a feature of a group has two. */
  readonly keptStep: Float64Array;
  readonly #least: Float64Array;
  readonly #greatest: Float64Array;
  readonly #dummy: Float64Array;

  /**
   * @throws SealserveError of kind "parameter": the values make no grid. The text begins with
   * `name`.
   */
  constructor(name: string, description: GridDescription) {
    const { featureCount, group, exactlyOne } = description;
    const refuse = (why: string) => parameterError(`${name}: ${why}`);
    this.featureCount = featureCount;
    this.minimum = unfolded(description.minimum, featureCount);
    this.maximum = unfolded(description.maximum, featureCount);
    this.step = unfolded(description.step, featureCount);
    this.keeps = Uint8Array.from(
      unfolded(description.keeps.length === 0 ? [0] : description.keeps.map(Number), featureCount),
    );
    this.group = exactlyOne.length > 0 ? group : [];
    this.exactlyOne = exactlyOne;
    if (this.keeps.length !== featureCount) {
      throw refuse("keeps needs one value, or one for each feature");
    }
    const width = this.maximum.map((high, k) => high - this.minimum[k]);
    const areFinite = (values: Float64Array) => values.every(Number.isFinite);
    if (!areFinite(this.minimum) || !areFinite(this.maximum) || !areFinite(width)) {
      throw refuse("the input range must be finite, and so must its width");
    }
    if (width.some((value) => value < 0)) {
      throw refuse("the input range is empty: a maximum is below its minimum");
    }
    if (!areFinite(this.step) || this.step.some((value) => value <= 0)) {
      throw refuse("the input step must be above 0 and finite");
    }
    if (width.some((value, k) => value / this.step[k] > MAX_LEVELS)) {
      throw refuse("the input step is finer than a 2^32nd of the range");
    }
    this.levels = width.map((value, k) => roundHalfEven(value / this.step[k]));
    if (!areGroups(group, exactlyOne.length)) {
      throw refuse("each group needs a feature, and each number of a group has to be 0 to their count");
    }
    if (this.group.some((number, k) => number > 0 && !(this.keeps[k] && this.levels[k] > 0))) {
      throw refuse("a feature of a group must keep its grid, and have two values at least");
    }
    this.#least = this.minimum.map((low, k) => {
      const half = this.levels[k] > 0 ? this.step[k] / 2 : 0;
      return low - Math.max(half, FLOAT32 * Math.abs(low) + LEAST_FLOAT32);
    });
    this.#greatest = this.maximum.map((high, k) => {
      const last = this.levels[k] > 0 ? this.minimum[k] + (this.levels[k] + 0.5) * this.step[k] : high;
      return Math.max(last, high + (FLOAT32 * Math.abs(high) + LEAST_FLOAT32));
    });
    this.keptStep = this.step.map((value, k) => (this.group[k] ? value * this.levels[k] : value));
    this.#dummy = this.#dummyIntegers();
  }

  /**
   * Round rows onto the grid. Each refused row becomes a dummy.
   *
   * A row is refused if a feature is not finite, is off a grid that it should be on or, unless
   * `clip`, is outside its range, or if it breaks a group. All features of all rows are looked at
   * whatever the values are: neither what a client sends nor when it sends it depends on them. Why
   * rows were refused is found out later.
   *
   * @param rows each of featureCount values.
   * @param clip move features outside the range to its nearest end.
   */
  quantize(rows: readonly ArrayLike<number>[], clip: boolean): Quantized {
    const count = this.featureCount;
    const integers = new Float64Array(rows.length * count);
    const isRefused = new Uint8Array(rows.length);
    rows.forEach((row, index) => {
      const cells = integers.subarray(index * count, (index + 1) * count);
      const refused = this.#quantize(row, clip, cells);
      isRefused[index] = refused;
      for (let k = 0; k < count; k++) {
        cells[k] = refused ? this.#dummy[k] : cells[k];
      }
    });
    return { integers, rowCount: rows.length, isRefused };
  }

  /** Return why a feature is refused; undefined if it is not. */
  faultOf(feature: number, x: number, clip: boolean): FeatureFault | undefined {
    if (!Number.isFinite(x)) {
      return "notFinite";
    }
    if (!clip && (x < this.#least[feature] || x > this.#greatest[feature])) {
      return "outside";
    }
    const bounded = this.#bounded(feature, x, clip);
    return this.#isOff(feature, bounded) ? "offGrid" : undefined;
  }

  /** Quantize a row, and return 1 if it is refused, else 0. */
  #quantize(row: ArrayLike<number>, clip: boolean, cells: Float64Array): number {
    const atMaximum = new Int32Array(this.exactlyOne.length + 1);
    let refused = 0;
    for (let k = 0; k < this.featureCount; k++) {
      const x = row[k];
      const bounded = this.#bounded(k, x, clip);
      const low = this.minimum[k];
      refused |= Number(clip ? !Number.isFinite(x) : bounded !== x) | Number(this.#isOff(k, bounded));
      atMaximum[this.group[k] ?? 0] += Number(bounded - low > this.keptStep[k] / 2);
      cells[k] = Math.min(Math.max(roundHalfEven((bounded - low) / this.step[k]), 0), this.levels[k]);
    }
    this.exactlyOne.forEach((isExact, index) => {
      refused |= Number(atMaximum[index + 1] > 1) | (Number(isExact) & Number(atMaximum[index + 1] === 0));
    });
    return refused;
  }

  /** Move a feature to the nearest end of what is inside. */
  #bounded(feature: number, x: number, clip: boolean): number {
    const least = clip ? this.minimum[feature] : this.#least[feature];
    const greatest = clip ? this.maximum[feature] : this.#greatest[feature];
    return Math.min(Math.max(x, least), greatest);
  }

  #isOff(feature: number, x: number): boolean {
    const [low, distance] = [this.minimum[feature], this.keptStep[feature]];
    const nearest = low + roundHalfEven((x - low) / distance) * distance;
    const tolerance = Math.max(OFF_GRID * this.step[feature], FLOAT32 * Math.abs(x));
    return this.keeps[feature] === 1 && Math.abs(x - nearest) > tolerance;
  }

  /**
   * All features at their minimum but the first one of each exactly-one group: an admissible row.
   */
  #dummyIntegers(): Float64Array {
    const dummy = new Float64Array(this.featureCount);
    this.exactlyOne.forEach((isExact, index) => {
      const first = this.group.indexOf(index + 1);
      if (isExact && first >= 0) {
        dummy[first] = this.levels[first];
      }
    });
    return dummy;
  }
}

function unfolded(values: readonly number[], count: number): Float64Array {
  return values.length === 1 ? new Float64Array(count).fill(values[0]) : Float64Array.from(values);
}

/** Tell whether numbers of groups are 0..count, and each group has a feature. */
function areGroups(group: readonly number[], count: number): boolean {
  const found = new Set(group);
  found.delete(0);
  return found.size === count && [...found].every((number) => number <= count);
}
