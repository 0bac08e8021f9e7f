/**
 * Refusal: the error that says which rows a model refuses, and why.
 *
 * It is composed after the answer to a call has come. Nothing that is sent waits for it. It names
 * rows and columns, but never a value.
 */

import { type InputFailure, SealserveError } from "../errors.ts";
import { quoted } from "../text.ts";
import { type ColumnFault, faultOf, rangeOf, type Value } from "./column.ts";
import { featuresOf } from "./features.ts";
import type { FeatureFault } from "./grid.ts";
import type { Model } from "./model.ts";

const SHOWN = 5; // faults that a text names, and rows of each
const CLIPPING = "pass clip: true for the prediction at the nearest end of the range, which may be another";

type FaultKind = ColumnFault | FeatureFault | "step" | "group";

/** One thing that is wrong, with the rows in which it is. */
interface Fault {
  readonly kind: FaultKind;
  readonly words: string;
  readonly rows: number[];
}

/**
 * Compose the error of refused rows.
 *
 * @param rows the rows of a call, as they were read, by their numbers in the call.
 */
export function refusal(model: Model, rows: ReadonlyMap<number, readonly Value[]>, clip: boolean): SealserveError {
  const faults = new Map<string, Fault>();
  for (const [number, row] of rows) {
    for (const [kind, words] of faultsOf(model, row, clip)) {
      const fault = faults.get(words) ?? { kind, words, rows: [] };
      faults.set(words, fault);
      fault.rows.push(number);
    }
  }
  const found = [...faults.values()];
  const kinds = new Set(found.map((fault) => fault.kind));
  const numbers = [...rows.keys()].slice(0, SHOWN);
  const named = found
    .slice(0, SHOWN)
    .map((fault) => (rows.size > 1 ? `${rowsInWords(fault.rows)}, ${fault.words}` : fault.words));
  const more = found.length > SHOWN ? [`and ${found.length - SHOWN} more`] : [];
  const message = `${[...named, ...more].join("; ")}: ${adviceOf(kinds).join("; ")}`;
  return new SealserveError(failureOf(kinds, numbers), message);
}

function* faultsOf(model: Model, given: readonly Value[], clip: boolean): Generator<[FaultKind, string]> {
  const { schema, grid } = model;
  let isRefused = false;
  for (const [position, column] of schema.columns.entries()) {
    const fault = faultOf(column, given[position], clip);
    if (fault !== undefined) {
      isRefused = true;
      yield [fault, `${schema.words(position)} ${columnFaultInWords(fault, rangeOf(column))}`];
    }
  }
  const features = featuresOf(model, given, clip);
  if (isRefused) {
    return;
  }
  if (features.isRefusedByStep) {
    yield ["step", "a column has a value that the model's steps do not take"];
    return;
  }
  let hasFault = false;
  for (let k = 0; k < grid.featureCount; k++) {
    const fault = grid.faultOf(k, features.values[k], clip);
    if (fault !== undefined) {
      hasFault = true;
      yield [fault, `${featureInWords(model, k)} ${featureFaultInWords(model, k, fault, features.values[k])}`];
    }
  }
  if (!hasFault) {
    yield ["group", "of a group of features, another number is at its maximum than the model expects"];
  }
}

function featureInWords(model: Model, feature: number): string {
  const name = model.stepsId === "" ? model.schema.columnNames[feature] : undefined;
  return name === undefined ? `feature ${feature}` : `column ${quoted(name)} (feature ${feature})`;
}

function columnFaultInWords(fault: ColumnFault, [low, high]: readonly [number, number]): string {
  switch (fault) {
    case "missing":
      return "is missing";
    case "outside":
      return `is outside the column's range ${low}..${high}`;
    case "noInteger":
      return "is no integer";
  }
}

function featureFaultInWords({ grid }: Model, feature: number, fault: FeatureFault, value: number): string {
  switch (fault) {
    case "notFinite":
      return Number.isNaN(value) ? "is missing (NaN)" : "is infinite";
    case "outside":
      return `is outside the model's range ${grid.minimum[feature]}..${grid.maximum[feature]}`;
    case "offGrid":
      return `is not on the model's grid, ${grid.minimum[feature]} and multiples of ${grid.keptStep[feature]} above it`;
  }
}

function rowsInWords(rows: readonly number[]): string {
  const more = rows.length > SHOWN ? ` and ${rows.length - SHOWN} more` : "";
  return `${rows.length === 1 ? "row" : "rows"} ${rows.slice(0, SHOWN).join(", ")}${more}`;
}

function adviceOf(kinds: ReadonlySet<FaultKind>): string[] {
  const advice: string[] = [];
  if (kinds.has("missing") || kinds.has("notFinite")) {
    advice.push("replace what is missing or infinite");
  }
  if (kinds.has("outside")) {
    advice.push(`scores have no guarantee outside the range, so scale the features, or ${CLIPPING}`);
  }
  if (kinds.has("offGrid") || kinds.has("noInteger")) {
    advice.push("the model takes no value between, so round them");
  }
  if (kinds.has("group")) {
    advice.push("set as many features of a group to their maximum as the model expects");
  }
  return advice.length > 0 ? advice : ["pass values like those that the model was trained on"];
}

function failureOf(kinds: ReadonlySet<FaultKind>, rows: readonly number[]): InputFailure {
  if (kinds.has("notFinite") || [...kinds].every((kind) => kind === "missing")) {
    return { kind: "notFinite", rows };
  }
  if (kinds.has("outside") || kinds.has("group")) {
    return { kind: "outOfRange", rows };
  }
  return kinds.has("offGrid") ? { kind: "offGrid", rows } : { kind: "input" };
}
