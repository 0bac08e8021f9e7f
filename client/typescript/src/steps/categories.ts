/** Steps for categories: OneHot and Lookup, and the codes of categories that they share. */

import { create } from "@bufbuild/protobuf";
import {
  type Categories as CategoriesMessage,
  CategoriesSchema,
  type Lookup,
  type OneHot,
} from "../generated/sealserve/v1/steps_pb.ts";
import type { Value } from "../protocol/column.ts";
import { MAX_TEXT_BYTES, MAX_VALUES, OPERATIONS_A_CALL } from "./limits.ts";
import { check, checkRules, increasing, pushIndicators, type Step, sumOf, type ValueKind } from "./step.ts";

/** The categories of an input. */
class Categories {
  readonly kind: ValueKind;
  /** The number of codes: two more than categories. */
  readonly codeCount: number;
  readonly #codes: ReadonlyMap<Value, number>;
  readonly #refusesMissing: boolean;
  readonly #refusesUnknown: boolean;

  constructor(message: CategoriesMessage) {
    const { numbers, texts, isText } = message;
    const isOfTexts = isText || texts.length > 0;
    check(!(isOfTexts && numbers.length > 0), "categories are either numbers or texts");
    this.kind = isOfTexts ? "text" : "number";
    const known: readonly Value[] = isOfTexts ? distinct("a category", texts) : increasing("categories", numbers, true);
    this.#codes = new Map(known.map((value, code) => [value, code]));
    this.codeCount = known.length + 2;
    this.#refusesMissing = message.refusesMissing;
    this.#refusesUnknown = message.refusesUnknown;
  }

  /** The code of a value: its category, or one more for each of missing and unknown. */
  code(value: Value): number {
    const isMissing = value === null || Number.isNaN(value);
    // A map finds 0 for -0, as numbers are equal. It would find NaN, which no category is.
    return this.#codes.get(value) ?? (isMissing ? this.codeCount - 2 : this.codeCount - 1);
  }

  /** Whether a row with a value of this code is refused. */
  refuses(code: number): boolean {
    return (
      (this.#refusesMissing && code === this.codeCount - 2) || (this.#refusesUnknown && code === this.codeCount - 1)
    );
  }
}

/** Has several outputs for each input, of which one at most is 1. */
export function oneHotStep(message: OneHot, inputCount: number): Step {
  checkRules(message.columns, inputCount);
  const columns = message.columns.map(({ categories, places, width }) => {
    const known = categoriesOf(categories);
    check(places.length === known.codeCount, "there is a place for each category, for missing and for unknown values");
    check(
      width >= 1 && width <= MAX_VALUES && places.every((place) => place <= width),
      "a place is beyond the outputs, or there are none",
    );
    return { known, places, width };
  });
  const width = sumOf(columns, (column) => column.width);
  return stepOfCategories(columns, width, (k, code, outputs) => {
    pushIndicators(outputs, columns[k].width, columns[k].places[code] - 1);
  });
}

/** Replaces a category by a number. */
export function lookupStep(message: Lookup, inputCount: number): Step {
  checkRules(message.columns, inputCount);
  const columns = message.columns.map(({ categories, values }) => {
    const known = categoriesOf(categories);
    check(values.length === known.codeCount, "numbers are needed for each category, missing and unknown values");
    check(!values.some((value) => Math.abs(value) === Infinity), "a number of a category is infinite");
    return { known, values };
  });
  return stepOfCategories(columns, columns.length, (k, code, outputs) => {
    outputs.push(columns[k].values[code]);
  });
}

/** Check that texts occur once each and are not too long, and return them. */
export function distinct(what: string, texts: readonly string[]): readonly string[] {
  check(new Set(texts).size === texts.length, `${what} occurs twice`);
  const encoder = new TextEncoder();
  const isLong = (text: string) => text.length > MAX_TEXT_BYTES / 3 && encoder.encode(text).length > MAX_TEXT_BYTES;
  check(!texts.some(isLong), `${what} has more than ${MAX_TEXT_BYTES} bytes`);
  return texts;
}

function categoriesOf(message: CategoriesMessage | undefined): Categories {
  return new Categories(message ?? create(CategoriesSchema));
}

function stepOfCategories(
  columns: readonly { readonly known: Categories }[],
  width: number,
  push: (position: number, code: number, outputs: Value[]) => void,
): Step {
  return {
    width,
    outputKind: "number",
    operations: columns.length + width + OPERATIONS_A_CALL * columns.length,
    textCount: sumOf(columns, ({ known }) => known.codeCount),
    kindOfInput: (position) => columns[position].known.kind,
    apply(inputs, outputs) {
      let isRefused = false;
      columns.forEach(({ known }, k) => {
        const code = known.code(inputs[k]);
        isRefused = known.refuses(code) || isRefused;
        push(k, code, outputs);
      });
      return isRefused;
    },
  };
}
