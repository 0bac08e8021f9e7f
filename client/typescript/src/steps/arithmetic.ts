/** Steps of arithmetic: Affine, Monomials, Normalize and Matrix. */

import {
  type Affine,
  type Matrix,
  type Monomials,
  type Normalize,
  Normalize_Norm,
} from "../generated/sealserve/v1/steps_pb.ts";
import { MAX_FACTORS } from "./limits.ts";
import { check, finite, numericStep, type Step, sumOf, unknownStep } from "./step.ts";

/** Computes (x - subtract) / divide * multiply + add, in this order. */
export function affineStep(message: Affine, inputCount: number): Step {
  const { subtract, divide, multiply, add } = message;
  for (const operands of [subtract, divide, multiply, add]) {
    finite("operands", operands);
    check(operands.length === 0 || operands.length === inputCount, "operands are not one for each input");
  }
  check(!divide.includes(0), "divide is 0");
  return numericStep(inputCount, inputCount, (inputs, outputs) => {
    inputs.forEach((x, k) => {
      const shifted = subtract.length > 0 ? x - subtract[k] : x;
      const divided = divide.length > 0 ? shifted / divide[k] : shifted;
      const multiplied = multiply.length > 0 ? divided * multiply[k] : divided;
      outputs.push(add.length > 0 ? multiplied + add[k] : multiplied);
    });
  });
}

/** Products of inputs, one for each output. */
export function monomialsStep(message: Monomials, inputCount: number): Step {
  const { degrees, factors } = message;
  check(
    degrees.length > 0 && degrees.every((degree) => degree <= MAX_FACTORS),
    `products have 0 to ${MAX_FACTORS} factors, and there is at least one product`,
  );
  check(
    sumOf(degrees, (degree) => degree) === factors.length && factors.every((factor) => factor < inputCount),
    "the factors are not as many as the degrees say, or not of inputs",
  );
  const operations = degrees.length * degrees.reduce((most, degree) => Math.max(most, degree), 1);
  return numericStep(
    inputCount,
    degrees.length,
    (inputs, outputs) => {
      let at = 0;
      for (const degree of degrees) {
        let product = 1;
        for (const stop = at + degree; at < stop; at++) {
          product *= inputs[factors[at]];
        }
        outputs.push(product);
      }
    },
    { operations },
  );
}

/** Divides all inputs by their norm. A norm of 0 counts as 1. */
export function normalizeStep(message: Normalize, inputCount: number): Step {
  const norm = NORMS.get(message.norm);
  if (norm === undefined) {
    throw unknownStep();
  }
  return numericStep(inputCount, inputCount, (inputs, outputs) => {
    const divisor = norm(inputs) || 1;
    const isGap = inputs.some(Number.isNaN);
    for (const x of inputs) {
      outputs.push(isGap ? Number.NaN : x / divisor);
    }
  });
}

/** Computes intercepts[k] + the sum over j of weights[k, j] x_j. */
export function matrixStep(message: Matrix, inputCount: number): Step {
  const { weights, intercepts } = message;
  check(
    intercepts.length > 0 && weights.length === intercepts.length * inputCount,
    "weights are needed for each output and input",
  );
  finite("weights", weights);
  finite("intercepts", intercepts);
  return numericStep(
    inputCount,
    intercepts.length,
    (inputs, outputs) => {
      intercepts.forEach((intercept, k) => {
        let sum = 0;
        for (let j = 0; j < inputCount; j++) {
          sum += weights[k * inputCount + j] * inputs[j];
        }
        outputs.push(sum + intercept);
      });
    },
    { operations: weights.length },
  );
}

const NORMS: ReadonlyMap<Normalize_Norm, (inputs: readonly number[]) => number> = new Map([
  [Normalize_Norm.L1, (inputs) => sumOf(inputs, Math.abs)],
  [Normalize_Norm.L2, (inputs) => Math.sqrt(sumOf(inputs, (x) => x * x))],
  [Normalize_Norm.MAX, (inputs) => inputs.reduce((most, x) => Math.max(most, Math.abs(x)), 0)],
]);
