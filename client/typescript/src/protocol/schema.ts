/** Schema: the columns of the rows that a user hands in, and how rows are read. */

import { inputError, SealserveError } from "../errors.ts";
import { quoted } from "../text.ts";
import { type Column, faultOf, isText, rangeOf, type Value } from "./column.ts";

/** A value as a user hands it in. null, undefined and NaN are missing. */
export type Cell = number | bigint | boolean | string | null | undefined;

/** A row: its values in the order of the model's columns, or by their names. */
export type Row = ArrayLike<Cell> | Readonly<Record<string, Cell>>;

/** Rows, as the methods of a client take them. */
export type Rows = readonly Row[];

const SHOWN_NAMES = 10;

/** The columns of a model's rows. */
export class Schema {
  /** The width of a row. */
  readonly columnCount: number;
  /** One a column, in order; empty where the model has none. */
  readonly columnNames: readonly string[];
  /** What each column takes; empty if all are numbers within the ranges of the grid. */
  readonly columns: readonly Column[];

  constructor(columnCount: number, columnNames: readonly string[], columns: readonly Column[] = []) {
    this.columnCount = columnCount;
    this.columnNames = columnNames;
    this.columns = columns;
  }

  /** Return a column as errors name it: by its name, or else by its number from 0. */
  words(position: number): string {
    const name = this.columnNames[position];
    return name === undefined ? `column ${position}` : `column ${quoted(name)}`;
  }

  /**
   * Read rows.
   *
   * @throws SealserveError of kind "input": a value is of another type than its column.
   * @throws SealserveError of kind "featureName" or "featureCount": rows have other columns.
   */
  read(rows: Rows): Value[][] {
    return Array.from(rows, (row) => this.#read(row));
  }

  /** Tell whether a row has a value that its column does not take. All values are looked at. */
  refuses(row: readonly Value[], clip: boolean): boolean {
    let isRefused = false;
    this.columns.forEach((column, position) => {
      isRefused = faultOf(column, row[position], clip) !== undefined || isRefused;
    });
    return isRefused;
  }

  /** Move numbers outside the range of their column to its nearest end. */
  clipped(row: readonly Value[]): Value[] {
    return row.map((value, position) => {
      const column = this.columns[position];
      if (column === undefined || column.kind === "unused" || isText(column)) {
        return value;
      }
      const [low, high] = rangeOf(column);
      return Math.min(Math.max(Number(value), low), high);
    });
  }

  #read(row: Row): Value[] {
    if (typeof row !== "object" || row === null) {
      throw inputError("a row must be an array, a typed array or an object of values by column names");
    }
    const cells = isArrayLike(row) ? this.#byPosition(row) : this.#byName(row);
    return cells.map((cell, position) => this.#value(cell, position));
  }

  #byPosition(row: ArrayLike<Cell>): Cell[] {
    if (row.length !== this.columnCount) {
      throw new SealserveError(
        { kind: "featureCount", expected: this.columnCount, received: row.length },
        `rows of ${this.columnCount} features are needed, and one has ${row.length}`,
      );
    }
    return Array.from(row);
  }

  #byName(row: Readonly<Record<string, Cell>>): Cell[] {
    if (this.columnNames.length === 0) {
      throw new SealserveError(
        { kind: "featureName" },
        "the model's columns have no names: pass rows as arrays, in its order",
      );
    }
    const isUnused = (position: number) => this.columns[position]?.kind === "unused";
    const missing = this.columnNames.filter((name, position) => !isUnused(position) && !Object.hasOwn(row, name));
    const known = new Set(this.columnNames);
    const unexpected = Object.keys(row).filter((name) => !known.has(name));
    if (missing.length > 0 || unexpected.length > 0) {
      const parts = [listed("missing", missing), listed("unexpected", unexpected)].filter((part) => part !== "");
      throw new SealserveError({ kind: "featureName" }, `the columns must be those of the model; ${parts.join("; ")}`);
    }
    return this.columnNames.map((name) => (Object.hasOwn(row, name) ? row[name] : undefined));
  }

  #value(cell: Cell, position: number): Value {
    const column = this.columns[position];
    if (column?.kind === "unused") {
      return Number.NaN;
    }
    if (column !== undefined && isText(column)) {
      if (typeof cell === "string") {
        return cell;
      }
      if (cell === null || cell === undefined || Number.isNaN(cell)) {
        return null;
      }
      throw inputError(`${this.words(position)} is one of strings, and has a value of type ${typeof cell}`);
    }
    if (typeof cell === "string") {
      throw inputError(`${this.words(position)} has a value of type string, not a number`);
    }
    if (cell !== null && typeof cell === "object") {
      throw inputError(`${this.words(position)} has an object as a value, not a number`);
    }
    return cell === null || cell === undefined ? Number.NaN : Number(cell);
  }
}

function isArrayLike(row: Row): row is ArrayLike<Cell> {
  return Array.isArray(row) || ArrayBuffer.isView(row);
}

function listed(what: string, names: readonly string[]): string {
  if (names.length === 0) {
    return "";
  }
  const more = names.length > SHOWN_NAMES ? ", ..." : "";
  return `${what}: ${names
    .slice(0, SHOWN_NAMES)
    .map((name) => quoted(name))
    .join(", ")}${more}`;
}
