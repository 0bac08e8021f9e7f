/** Program: the published steps of a model, checked and ready to be applied to rows. */

import { fromBinary } from "@bufbuild/protobuf";
import { parameterError, SealserveError } from "../errors.ts";
import {
  type InputSteps,
  InputStepsSchema,
  type Step as StepMessage,
  ValueKind as ValueKindNumber,
  type ValueRange,
} from "../generated/sealserve/v1/steps_pb.ts";
import type { Value } from "../protocol/column.ts";
import { affineStep, matrixStep, monomialsStep, normalizeStep } from "./arithmetic.ts";
import { lookupStep, oneHotStep } from "./categories.ts";
import { elementwiseStep } from "./elementwise.ts";
import { imputeStep, missingStep } from "./gaps.ts";
import { binsStep, piecewiseStep, tableStep } from "./intervals.ts";
import {
  MAX_CATEGORIES,
  MAX_INPUTS,
  MAX_MEMBERSHIPS,
  MAX_OPERATIONS,
  MAX_RULES,
  MAX_STEPS,
  MAX_STEPS_BYTES,
  MAX_VALUES,
} from "./limits.ts";
import { check, type Step, sumOf, unknownStep, type ValueKind } from "./step.ts";
import { textStep } from "./text.ts";
import { membershipCount, treesStep } from "./trees.ts";

const KINDS: ReadonlyMap<ValueKindNumber, ValueKind> = new Map([
  [ValueKindNumber.NUMBER, "number"],
  [ValueKindNumber.TEXT, "text"],
]);

/** A step with the numbers of the values that it reads. */
interface ReadingStep {
  readonly step: Step;
  readonly inputs: Int32Array;
}

/** The features of a row. */
export interface Features {
  readonly values: Float64Array;
  /** Whether a step refuses the row. Its features are NaN then. */
  readonly isRefused: boolean;
}

/**
 * Steps that turn the columns of a row into its features.
 *
 * The values of a row are numbered: first the columns, then the outputs of each step in turn.
 */
export class Program {
  /** The kind of each column. */
  readonly columns: readonly ValueKind[];
  /** The number of features. */
  readonly featureCount: number;
  readonly #steps: readonly ReadingStep[];
  readonly #outputs: Int32Array;

  private constructor(columns: readonly ValueKind[], steps: readonly ReadingStep[], outputs: Int32Array) {
    this.columns = columns;
    this.#steps = steps;
    this.#outputs = outputs;
    this.featureCount = outputs.length;
    checkSizes(columns.length, steps);
    checkKinds(columns, steps, outputs);
  }

  /**
   * Check and convert a serialized InputSteps.
   *
   * @throws SealserveError of kind "parameter": it is malformed, contradicts itself or is beyond
   * the limits.
   * @throws SealserveError of kind "requirement": it has something that this version does not know.
   */
  static parse(data: Uint8Array): Program {
    if (data.length > MAX_STEPS_BYTES) {
      throw parameterError(`the steps have ${data.length} bytes, more than ${MAX_STEPS_BYTES}`);
    }
    const message = parsed(data);
    checkCounts(message);
    const columns = message.columns.map((number) => {
      const kind = KINDS.get(number);
      if (kind === undefined) {
        throw unknownStep();
      }
      return kind;
    });
    const inputCount = sumOf(message.steps, ({ inputs }) => sumOf(inputs, ({ count }) => count));
    check(inputCount <= MAX_INPUTS, `the steps have more than ${MAX_INPUTS} inputs together`);
    const steps = message.steps.map((step) => {
      const inputs = valuesOf(step.inputs);
      check(inputs.length > 0, "a step needs an input");
      return { step: stepOf(step, inputs.length), inputs };
    });
    const memberships = sumOf(message.steps, ({ kind }) => (kind.case === "trees" ? membershipCount(kind.value) : 0));
    check(memberships <= MAX_MEMBERSHIPS, `the trees have more than ${MAX_MEMBERSHIPS} categories of nodes together`);
    return new Program(columns, steps, valuesOf(message.outputs));
  }

  /**
   * Compute the features of a row. All steps run whatever its values are.
   *
   * @param row as many values as columns, of their kinds.
   */
  features(row: readonly Value[]): Features {
    const values = [...row];
    let isRefused = false;
    for (const { step, inputs } of this.#steps) {
      isRefused = step.apply(taken(values, inputs), values) || isRefused;
    }
    const features = Float64Array.from(this.#outputs, (number) => Number(values[number]));
    return { values: isRefused ? features.fill(Number.NaN) : features, isRefused };
  }
}

function parsed(data: Uint8Array): InputSteps {
  try {
    return fromBinary(InputStepsSchema, data);
  } catch (error) {
    throw new SealserveError({ kind: "parameter" }, "the steps are malformed", { cause: error });
  }
}

/** Check how many of everything there are, before anything is converted. */
function checkCounts(message: InputSteps): void {
  check(
    message.steps.length <= MAX_STEPS && message.columns.length <= MAX_VALUES,
    "there are too many steps or columns",
  );
  const rules = sumOf(message.steps, ({ kind }) => {
    switch (kind.case) {
      case undefined:
        throw unknownStep();
      case "oneHot":
      case "lookup":
      case "bins":
      case "table":
      case "piecewise":
        return kind.value.columns.length;
      case "trees":
        return kind.value.categorySplits.length;
      default:
        return 0;
    }
  });
  check(rules <= MAX_RULES, `the steps have ${rules} rules for columns and splits by category, more than ${MAX_RULES}`);
}

function stepOf({ kind }: StepMessage, inputCount: number): Step {
  switch (kind.case) {
    case "impute":
      return imputeStep(kind.value, inputCount);
    case "missing":
      return missingStep(kind.value, inputCount);
    case "affine":
      return affineStep(kind.value, inputCount);
    case "oneHot":
      return oneHotStep(kind.value, inputCount);
    case "lookup":
      return lookupStep(kind.value, inputCount);
    case "bins":
      return binsStep(kind.value, inputCount);
    case "table":
      return tableStep(kind.value, inputCount);
    case "piecewise":
      return piecewiseStep(kind.value, inputCount);
    case "monomials":
      return monomialsStep(kind.value, inputCount);
    case "elementwise":
      return elementwiseStep(kind.value, inputCount);
    case "normalize":
      return normalizeStep(kind.value, inputCount);
    case "matrix":
      return matrixStep(kind.value, inputCount);
    case "trees":
      return treesStep(kind.value, inputCount);
    case "text":
      return textStep(kind.value, inputCount);
    default:
      throw unknownStep();
  }
}

/** Return the numbers of the values in ranges. */
function valuesOf(ranges: readonly ValueRange[]): Int32Array {
  check(
    ranges.every(({ first, count }) => first < MAX_VALUES && count > 0),
    `a range of values is empty, or begins beyond ${MAX_VALUES}`,
  );
  const length = sumOf(ranges, ({ count }) => count);
  check(length <= MAX_INPUTS, `a list of inputs or outputs is longer than ${MAX_INPUTS}`);
  const values = new Int32Array(length);
  let at = 0;
  for (const { first, count } of ranges) {
    for (let number = first; number < first + count; number++) {
      values[at++] = number;
    }
  }
  return values;
}

function taken(values: readonly Value[], numbers: Int32Array): Value[] {
  const found = new Array<Value>(numbers.length);
  for (let k = 0; k < numbers.length; k++) {
    found[k] = values[numbers[k]];
  }
  return found;
}

/** Check the sums over all steps. */
function checkSizes(columnCount: number, steps: readonly ReadingStep[]): void {
  for (const [what, count, most] of [
    ["values", columnCount + sumOf(steps, ({ step }) => step.width), MAX_VALUES],
    ["operations on a row", sumOf(steps, ({ step }) => step.operations), MAX_OPERATIONS],
    ["categories and terms", sumOf(steps, ({ step }) => step.textCount), MAX_CATEGORIES],
  ] as const) {
    check(count <= most, `there are ${count} ${what}, more than ${most}`);
  }
}

/** Check that each step reads values that exist already, of the kinds that it needs. */
function checkKinds(columns: readonly ValueKind[], steps: readonly ReadingStep[], outputs: Int32Array): void {
  check(
    columns.length > 0 && outputs.length > 0 && outputs.length <= MAX_VALUES,
    "steps have no columns, no outputs or too many",
  );
  const kinds = [...columns];
  steps.forEach(({ step, inputs }, number) => {
    inputs.forEach((value, position) => {
      check(value < kinds.length, `step ${number} reads a value that does not exist yet`);
      const needed = step.kindOfInput(position);
      check(needed === undefined || needed === kinds[value], `step ${number} needs a ${needed} as input ${position}`);
    });
    for (let k = 0; k < step.width; k++) {
      kinds.push(step.outputKind);
    }
  });
  check(
    outputs.every((value) => kinds[value] === "number"),
    "a feature is a value that there is not, or a text",
  );
}
