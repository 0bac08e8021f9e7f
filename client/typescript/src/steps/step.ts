/** Step: what all kinds of steps have in common. */

import { parameterError, requirementError, type SealserveError } from "../errors.ts";
import type { Value } from "../protocol/column.ts";

/** What a value is: a double, in which NaN is missing; or a string or null. */
export type ValueKind = "number" | "text";

/** A step, checked and ready to be applied to rows. */
export interface Step {
  /** The number of its outputs. */
  readonly width: number;
  /** What all its outputs are. */
  readonly outputKind: ValueKind;
  /** The number of elementary operations on a row, about. */
  readonly operations: number;
  /** The number of its categories, terms and other texts. */
  readonly textCount: number;
  /** Return what an input has to be; undefined if any kind will do. */
  kindOfInput(position: number): ValueKind | undefined;
  /**
   * Append the outputs of inputs to `outputs`.
   *
   * @returns whether the step refuses the row. It computes all outputs in any case.
   */
  apply(inputs: readonly Value[], outputs: Value[]): boolean;
}

/** What a step is made of, besides its own message. */
export type StepDescription = Partial<Pick<Step, "outputKind" | "operations" | "textCount" | "kindOfInput">>;

/** Make a step of numbers that refuses no row. */
export function numericStep(
  inputCount: number,
  width: number,
  compute: (inputs: readonly number[], outputs: Value[]) => void,
  description: StepDescription = {},
): Step {
  return {
    width,
    outputKind: "number",
    operations: inputCount + width,
    textCount: 0,
    kindOfInput: () => "number",
    apply(inputs, outputs) {
      compute(inputs as readonly number[], outputs); // a program has checked their kinds
      return false;
    },
    ...description,
  };
}

/** The error of steps that make no sense. */
export function malformed(why: string): SealserveError {
  return parameterError(`the steps make no sense: ${why}`);
}

/** The error of steps that this version does not know. */
export function unknownStep(): SealserveError {
  return requirementError("the steps have a kind or a function that this version does not know: update sealserve");
}

/** Check that a condition of a step holds. */
export function check(condition: boolean, why: string): void {
  if (!condition) {
    throw malformed(why);
  }
}

/** Check that numbers are finite, and return them. */
export function finite(what: string, values: readonly number[]): readonly number[] {
  check(values.every(Number.isFinite), `${what} are not finite`);
  return values;
}

/** Check that numbers are finite and do not decrease, and return them. */
export function increasing(what: string, values: readonly number[], strictly = false): readonly number[] {
  finite(what, values);
  const isInOrder = (value: number, k: number) =>
    k === 0 || (strictly ? value > values[k - 1] : value >= values[k - 1]);
  check(values.every(isInOrder), `${what} do not increase`);
  return values;
}

/** Check that as many rules as inputs are given. */
export function checkRules(rules: readonly unknown[], inputCount: number): void {
  check(rules.length === inputCount, "one rule for each input is needed");
}

/** Append a group of outputs of which one is 1; none if `place` is below 0. */
export function pushIndicators(outputs: Value[], width: number, place: number): void {
  for (let k = 0; k < width; k++) {
    outputs.push(k === place ? 1 : 0);
  }
}

/** Return the sum of what a function returns for each of some values. */
export function sumOf<T>(values: readonly T[], of: (value: T) => number): number {
  return values.reduce((total, value) => total + of(value), 0);
}
