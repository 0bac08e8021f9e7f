/** Columns: what a user hands in as one value of a row, and which values each takes. */

/** What the values of a column are. Strings and texts are strings; all others are numbers. */
export type ColumnKind = "number" | "integer" | "boolean" | "string" | "text" | "unused";

/** A column of the rows that a user hands in. */
export interface Column {
  /** No other column has it; "" for all columns of a model that knows no names. */
  readonly name: string;
  readonly kind: ColumnKind;
  /** Whether values may be missing. */
  readonly allowsMissing: boolean;
  /** The least number that the column takes, if there is one. */
  readonly minimum?: number;
  /** The greatest number that the column takes, if there is one. */
  readonly maximum?: number;
}

/** A value of a row, once it is read: a number, in which NaN is missing, or a string or null. */
export type Value = number | string | null;

/** Tell whether the values of a column are strings. */
export function isText(column: Column): boolean {
  return column.kind === "string" || column.kind === "text";
}

/** Return the least and the greatest number that a column takes. */
export function rangeOf(column: Column): readonly [low: number, high: number] {
  const [low, high] = column.kind === "boolean" ? [0, 1] : [-Infinity, Infinity];
  return [column.minimum ?? low, column.maximum ?? high];
}

/** Why a column refuses a value. */
export type ColumnFault = "missing" | "outside" | "noInteger";

/**
 * Return why a column does not take a value; undefined if it does.
 *
 * @param clip a number outside the range counts as being at its nearest end.
 */
export function faultOf(column: Column, value: Value, clip: boolean): ColumnFault | undefined {
  if (column.kind === "unused") {
    return undefined;
  }
  if (isText(column)) {
    return value === null && !column.allowsMissing ? "missing" : undefined;
  }
  const number = Number(value);
  const [low, high] = rangeOf(column);
  const isMissing = Number.isNaN(number) && !column.allowsMissing;
  const isOutside = !clip && (number < low || number > high);
  const takesIntegers = column.kind === "integer" || column.kind === "boolean";
  const isNoInteger = takesIntegers && !Number.isNaN(number) && !Number.isInteger(number) && Number.isFinite(number);
  return isMissing ? "missing" : isOutside ? "outside" : isNoInteger ? "noInteger" : undefined;
}
