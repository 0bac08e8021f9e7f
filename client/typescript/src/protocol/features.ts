/** Features: what a model's columns and steps make of a row. */

import { requirementError } from "../errors.ts";
import type { Value } from "./column.ts";
import type { Model } from "./model.ts";

/** The features of a row; all NaN if a column or a step refuses it. */
export interface RowFeatures {
  readonly values: Float64Array;
  readonly isRefusedByStep: boolean;
}

/**
 * Compute the features of a row. Without published steps they are the columns.
 *
 * What happens depends on the description, not on values: but text takes time by its length.
 *
 * @param clip numbers outside the range of their column are moved to its nearest end.
 * @throws SealserveError of kind "requirement": the model has steps that have not been fetched.
 */
export function featuresOf(model: Model, row: readonly Value[], clip: boolean): RowFeatures {
  const { schema, steps } = model;
  if (model.stepsId !== "" && steps === undefined) {
    throw requirementError(`model '${model.name}' has steps, which have not been fetched`);
  }
  const isRefused = schema.refuses(row, clip);
  const moved = clip ? schema.clipped(row) : row;
  const { values, isRefused: isRefusedByStep } =
    steps === undefined ? { values: Float64Array.from(moved, Number), isRefused: false } : steps.features(moved);
  return { values: isRefused ? values.fill(Number.NaN) : values, isRefusedByStep };
}
