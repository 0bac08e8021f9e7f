/** Steps of intervals: Bins, Table and Piecewise. */

import type {
  Bins,
  BinsColumn,
  Interval,
  Piecewise,
  PiecewiseColumn,
  Table,
  TableColumn,
} from "../generated/sealserve/v1/steps_pb.ts";
import type { Value } from "../protocol/column.ts";
import { countBelow, countNotAbove } from "../search.ts";
import { MAX_DEGREE, MAX_VALUES, OPERATIONS_A_CALL } from "./limits.ts";
import { check, checkRules, finite, increasing, numericStep, pushIndicators, type Step, sumOf } from "./step.ts";

/** Tells in which interval a number lies. */
export function binsStep(message: Bins, inputCount: number): Step {
  const { columns, oneHot } = message;
  checkRules(columns, inputCount);
  for (const { edges, missingBin } of columns) {
    increasing("edges", edges);
    check(
      missingBin === undefined || missingBin <= edges.length + 1,
      "missing_bin is not that of a bin, nor the number of bins",
    );
  }
  const width = oneHot ? sumOf(columns, binCount) : inputCount;
  return {
    ...numericStep(inputCount, width, () => {}, {
      operations: inputCount + width + OPERATIONS_A_CALL * inputCount,
    }),
    apply(inputs, outputs) {
      let isRefused = false;
      columns.forEach((column, k) => {
        const x = Number(inputs[k]);
        const bin = binOf(column, x);
        isRefused = (Number.isNaN(x) && column.missingBin === undefined) || isRefused;
        if (oneHot) {
          pushIndicators(outputs, binCount(column), bin);
        } else {
          outputs.push(bin);
        }
      });
      return isRefused;
    },
  };
}

/** Interpolates linearly between points. */
export function tableStep(message: Table, inputCount: number): Step {
  checkRules(message.columns, inputCount);
  const columns = message.columns.map(tableOf);
  return numericStep(
    inputCount,
    inputCount,
    (inputs, outputs) => {
      columns.forEach((column, k) => {
        outputs.push(interpolated(column, inputs[k]));
      });
    },
    { operations: 2 * inputCount + OPERATIONS_A_CALL * inputCount },
  );
}

/** Polynomials on intervals. A missing number makes its outputs NaN. */
export function piecewiseStep(message: Piecewise, inputCount: number): Step {
  const { columns } = message;
  checkRules(columns, inputCount);
  columns.forEach(checkPiecewise);
  const width = sumOf(columns, (column) => column.width);
  const powers = sumOf(columns, (column) => column.width * 2 * (column.degree + 1));
  return {
    ...numericStep(inputCount, width, () => {}, {
      operations: inputCount + width + OPERATIONS_A_CALL * inputCount + powers,
    }),
    apply(inputs, outputs) {
      let isRefused = false;
      columns.forEach((column, k) => {
        const x = Number(inputs[k]);
        const { domain } = column;
        isRefused = (domain !== undefined && (x < domain.low || x > domain.high)) || isRefused;
        pushPolynomials(column, x, outputs);
      });
      return isRefused;
    },
  };
}

function binCount(column: BinsColumn): number {
  return Math.max(column.edges.length, column.missingBin ?? -1) + 1;
}

function binOf({ edges, closedRight, missingBin }: BinsColumn, x: number): number {
  if (Number.isNaN(x)) {
    return missingBin ?? 0;
  }
  return closedRight ? countBelow(edges, x) : countNotAbove(edges, x);
}

/** The points of a table, and the same ones mirrored: (-x, -y) in reverse order. */
interface Points {
  readonly xs: readonly number[];
  readonly ys: readonly number[];
  readonly mirroredXs: readonly number[];
  readonly mirroredYs: readonly number[];
  readonly tolerance: number;
}

function tableOf({ xs, ys, tolerance }: TableColumn): Points {
  increasing("xs", xs);
  finite("ys", ys);
  check(xs.length > 0 && ys.length === xs.length, "as many ys as xs are needed, and a point");
  check(tolerance >= 0 && tolerance < Infinity, "a tolerance of 0 or above is needed");
  const mirrored = (values: readonly number[]) => values.toReversed().map((value) => -value);
  return { xs, ys, mirroredXs: mirrored(xs), mirroredYs: mirrored(ys), tolerance };
}

function interpolated({ xs, ys, mirroredXs, mirroredYs, tolerance }: Points, x: number): number {
  if (Number.isNaN(x)) {
    return x;
  }
  const [low, high] = [xs[0], xs[xs.length - 1]];
  if (tolerance > 0 ? x - tolerance < low : x <= low) {
    return ys[0];
  }
  if (tolerance > 0 ? x + tolerance > high : x >= high) {
    return ys[ys.length - 1];
  }
  return 0.5 * (rising(xs, ys, x) - rising(mirroredXs, mirroredYs, -x));
}

function rising(xs: readonly number[], ys: readonly number[], x: number): number {
  const j = countNotAbove(xs, x) - 1;
  if (j < 0 || j === xs.length - 1) {
    return ys[Math.max(j, 0)];
  }
  return ((ys[j + 1] - ys[j]) / (xs[j + 1] - xs[j])) * (x - xs[j]) + ys[j];
}

function checkPiecewise(column: PiecewiseColumn): void {
  const { edges, origins, coefficients, degree, width } = column;
  increasing("edges", edges);
  finite("origins", origins);
  finite("coefficients", coefficients);
  const pieces = edges.length + 1;
  check(
    degree <= MAX_DEGREE && width >= 1 && width <= MAX_VALUES,
    `polynomials have a degree of 0 to ${MAX_DEGREE}, and an output`,
  );
  check(
    origins.length === pieces && coefficients.length === pieces * (degree + 1) * width,
    "coefficients are needed for each piece, power and output",
  );
  for (const interval of [column.period, column.domain]) {
    check(interval === undefined || isInterval(interval), "an interval is empty or not finite");
  }
}

function isInterval({ low, high }: Interval): boolean {
  return Number.isFinite(low) && Number.isFinite(high) && low < high;
}

function pushPolynomials(column: PiecewiseColumn, given: number, outputs: Value[]): void {
  const { edges, origins, coefficients, degree, width, period } = column;
  const x = period === undefined ? given : period.low + remainder(given - period.low, period.high - period.low);
  const piece = Number.isNaN(x) ? 0 : countNotAbove(edges, x);
  const offset = x - origins[piece];
  const start = piece * (degree + 1) * width;
  for (let k = 0; k < width; k++) {
    let value = coefficients[start + degree * width + k] + 0 * offset; // NaN stays NaN
    for (let power = degree - 1; power >= 0; power--) {
      value = value * offset + coefficients[start + power * width + k];
    }
    outputs.push(value);
  }
}

/** The remainder that has the sign of the divisor. */
function remainder(x: number, divisor: number): number {
  const found = x % divisor;
  return found !== 0 && found < 0 !== divisor < 0 ? found + divisor : found;
}
