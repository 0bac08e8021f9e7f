/** Steps for what is missing: Impute and Missing. */

import type { Impute, Missing } from "../generated/sealserve/v1/steps_pb.ts";
import type { Value } from "../protocol/column.ts";
import { check, type Step } from "./step.ts";

/** Replaces what is missing by a number or a text for each input. */
export function imputeStep(message: Impute, inputCount: number): Step {
  const { numbers, texts, missingNumber } = message;
  check(numbers.length > 0 !== texts.length > 0, "either numbers or texts are needed to fill in");
  const fills: readonly Value[] = texts.length > 0 ? texts : numbers;
  check(fills.length === inputCount, "one value to fill in is needed for each input");
  check(!numbers.some((number) => Math.abs(number) === Infinity), "a number to fill in is infinite");
  check(texts.length === 0 || missingNumber === undefined, "only numbers have a missing_number");
  checkMissingNumber(missingNumber);
  const kind = texts.length > 0 ? "text" : "number";
  return {
    width: inputCount,
    outputKind: kind,
    operations: 2 * inputCount,
    textCount: texts.length,
    kindOfInput: () => kind,
    apply(inputs, outputs) {
      inputs.forEach((value, k) => {
        outputs.push(isMissing(value, missingNumber) ? fills[k] : value);
      });
      return false;
    },
  };
}

/** Tells what is missing: 1, else 0. */
export function missingStep(message: Missing, inputCount: number): Step {
  const { missingNumber } = message;
  checkMissingNumber(missingNumber);
  return {
    width: inputCount,
    outputKind: "number",
    operations: 2 * inputCount,
    textCount: 0,
    kindOfInput: () => undefined,
    apply(inputs, outputs) {
      for (const value of inputs) {
        outputs.push(Number(isMissing(value, missingNumber)));
      }
      return false;
    },
  };
}

function isMissing(value: Value, missingNumber: number | undefined): boolean {
  return value === null || (missingNumber === undefined ? Number.isNaN(value) : value === missingNumber);
}

function checkMissingNumber(missingNumber: number | undefined): void {
  check(missingNumber === undefined || Number.isFinite(missingNumber), "missing_number is not finite");
}
