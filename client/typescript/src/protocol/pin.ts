/**
 * Pin: a digest of the part of a description that decides what a client encrypts and how it reads
 * scores. The encoding is that of Python's `sealserve.protocol.pin`, so that one digest serves all.
 *
 *     text     the UTF-8 bytes, after their number as uint32
 *     uint32   little-endian, as are int64 and double; -0.0 is written as 0.0
 *     flag     one byte, 0 or 1
 */

import { SealserveError } from "../errors.ts";
import { sha256 } from "../he/digest.ts";
import { rangeOf } from "./column.ts";
import type { Model } from "./model.ts";
import type { Label } from "./output.ts";

const FORMAT = "sealserve-pin-1";
const DIGEST = /^[0-9a-f]{64}$/;

/** Return the digest of a model: 64 lower-case hexadecimal digits. */
export function pinOf(model: Model): Promise<string> {
  return sha256(encoded(model));
}

/** Return a digest as {@link pinOf} writes it; undefined if it is none. */
export function digestOf(text: string): string | undefined {
  const digest = text.toLowerCase();
  return DIGEST.test(digest) ? digest : undefined;
}

/**
 * Compare a model with the digest of the expected one.
 *
 * @throws SealserveError of kind "unexpectedModel": the model is another.
 */
export async function checkPin(model: Model, expected: string): Promise<void> {
  const received = await pinOf(model);
  if (received !== expected) {
    throw new SealserveError(
      { kind: "unexpectedModel", expected, received },
      `the model is not the one that is expected: its pin is ${received}, not ${expected}; look at the new ` +
        "description, and expect its pin if you trust it",
    );
  }
}

/** Bytes that grow. */
class Writer {
  readonly #encoder = new TextEncoder();
  #parts: Uint8Array[] = [];

  text(value: string): void {
    const bytes = this.#encoder.encode(value);
    this.uint32(bytes.length);
    this.#parts.push(bytes);
  }

  uint32(value: number): void {
    this.#number(4, (view) => view.setUint32(0, value, true));
  }

  int64(value: bigint): void {
    this.#number(8, (view) => view.setBigInt64(0, value, true));
  }

  double(value: number): void {
    this.#number(8, (view) => view.setFloat64(0, value + 0, true));
  }

  flag(value: boolean): void {
    this.#number(1, (view) => view.setUint8(0, Number(value)));
  }

  bytes(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.#parts.reduce((total, part) => total + part.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  #number(byteCount: number, set: (view: DataView) => void): void {
    const bytes = new Uint8Array(byteCount);
    set(new DataView(bytes.buffer));
    this.#parts.push(bytes);
  }
}

function encoded(model: Model): Uint8Array<ArrayBuffer> {
  const { schema, grid, output } = model;
  const writer = new Writer();
  writer.text(FORMAT);
  writer.uint32(schema.columnCount);
  writer.uint32(schema.columnNames.length);
  schema.columnNames.forEach((name) => {
    writer.text(name);
  });
  const saysMore = schema.columns.length > 0 || model.stepsId !== "";
  writer.uint32(Number(saysMore));
  if (saysMore) {
    writer.text(model.stepsId);
  }
  for (const column of schema.columns) {
    const [low, high] = rangeOf(column);
    writer.text(column.kind);
    writer.flag(column.allowsMissing);
    writer.double(low);
    writer.double(high);
  }
  writer.uint32(grid.featureCount);
  for (const values of [grid.minimum, grid.maximum, grid.step]) {
    values.forEach((value) => {
      writer.double(value);
    });
  }
  grid.keeps.forEach((value) => {
    writer.flag(value === 1);
  });
  writer.uint32(grid.exactlyOne.length);
  grid.group.forEach((number) => {
    writer.uint32(number);
  });
  grid.exactlyOne.forEach((isExact) => {
    writer.flag(isExact);
  });
  writer.text(output.task);
  writer.uint32(output.scoreCount);
  writer.text(output.link);
  writer.flag(output.scalarTarget);
  writer.flag(output.keepsZeroRows);
  writeLabels(writer, output.classes, output.labelType);
  writer.uint32(output.memberCount);
  writer.text(output.pairwise);
  writer.uint32(output.curves.length);
  for (const { scores, probabilities } of output.curves) {
    writer.uint32(scores.length);
    for (const value of [...scores, ...probabilities]) {
      writer.double(value);
    }
  }
  return writer.bytes();
}

function writeLabels(writer: Writer, labels: readonly Label[], type: Model["output"]["labelType"]): void {
  writer.text(type);
  writer.uint32(labels.length);
  for (const label of labels) {
    if (type === "str") {
      writer.text(String(label));
    } else if (type === "bool") {
      writer.flag(label === true);
    } else if (type === "int") {
      writer.int64(BigInt(label));
    } else {
      writer.double(Number(label));
    }
  }
}
