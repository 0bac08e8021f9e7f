/** Elementwise: a function of each number. */

import { type Elementwise, Elementwise_Function as F } from "../generated/sealserve/v1/steps_pb.ts";
import { normalQuantile } from "./normal-quantile.ts";
import { check, finite, numericStep, type Step, unknownStep } from "./step.ts";

/** How to compute a function of x, and of parameters a and b, of which it has so many. */
interface Rule {
  readonly parameters: number;
  readonly compute: (x: number, a: number, b: number) => number;
}

/** Applies a function to each input. Where the function has no value, the output is NaN. */
export function elementwiseStep(message: Elementwise, inputCount: number): Step {
  const rule = RULES.get(message.function);
  if (rule === undefined) {
    throw unknownStep();
  }
  const { first, second } = message;
  [first, second].forEach((values, index) => {
    const count = index < rule.parameters ? inputCount : 0;
    check(values.length === count, `a function has ${rule.parameters} parameters`);
    finite("parameters", values);
  });
  check(!second.some((b, k) => first[k] > b), "a is above b");
  return numericStep(inputCount, inputCount, (inputs, outputs) => {
    inputs.forEach((x, k) => {
      outputs.push(Number.isNaN(x) ? x : rule.compute(x, first[k], second[k]));
    });
  });
}

function clip(x: number, low: number, high: number): number {
  return Math.min(Math.max(x, low), high);
}

function yeoJohnson(x: number, a: number): number {
  if (x >= 0) {
    return Math.abs(a) < Number.EPSILON ? Math.log1p(x) : ((x + 1) ** a - 1) / a;
  }
  return Math.abs(a - 2) <= Number.EPSILON ? -Math.log1p(-x) : -((1 - x) ** (2 - a) - 1) / (2 - a);
}

function boxCox(x: number, a: number): number {
  if (!(x > 0)) {
    return Number.NaN;
  }
  return a === 0 ? Math.log(x) : Math.expm1(a * Math.log(x)) / a; // exact where a is small
}

function rule(compute: Rule["compute"], parameters = 0): Rule {
  return { compute, parameters };
}

const RULES: ReadonlyMap<F, Rule> = new Map([
  [F.ABS, rule(Math.abs)],
  [F.SQUARE, rule((x) => x * x)],
  [F.SQRT, rule(Math.sqrt)],
  [F.EXP, rule(Math.exp)],
  [F.EXPM1, rule(Math.expm1)],
  [F.LOG, rule(Math.log)],
  [F.LOG1P, rule(Math.log1p)],
  [F.COS, rule(Math.cos)],
  [F.SIN, rule(Math.sin)],
  [F.TANH, rule(Math.tanh)],
  [F.RELU, rule((x) => Math.max(x, 0))],
  [F.CLIP, rule(clip, 2)],
  [F.YEO_JOHNSON, rule(yeoJohnson, 1)],
  [F.BOX_COX, rule(boxCox, 1)],
  [F.NORMAL_QUANTILE, rule((x, a, b) => clip(normalQuantile(x), a, b), 2)],
  [F.SUBLINEAR, rule((x) => (x > 0 ? 1 + Math.log(x) : x * 0))],
  [F.GREATER, rule((x, a) => Number(x > a), 1)],
]);
