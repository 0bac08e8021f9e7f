/** Files of vectors: see tests/vectors/README.md in the repository. */

import { readdirSync, readFileSync } from "node:fs";
import { type DescMessage, fromBinary, fromJson, type JsonValue, type MessageShape } from "@bufbuild/protobuf";

/** Where the vectors are. */
export const FOLDER = new URL("../../../../tests/vectors/", import.meta.url);

/** A change of the bytes of a file. */
export interface Change {
  readonly at: number;
  readonly bytes?: string;
  readonly times?: number;
  readonly flip?: string;
}

/** What may be changed of the bytes of a file. */
export interface Changes {
  readonly changes?: readonly Change[];
  readonly length?: number;
}

/** Read a file of JSON. */
export function readJson<T>(path: string): T {
  return JSON.parse(new TextDecoder().decode(readBytes(path)));
}

/** Read the bytes of a file. A Buffer is not what the SDK is given. */
export function readBytes(path: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(new URL(path, FOLDER)));
}

/** List the files and folders of a folder. */
export function list(path: string): string[] {
  return readdirSync(new URL(path, FOLDER)).sort();
}

/** Read a message from protobuf's JSON mapping. */
export function ofJson<D extends DescMessage>(schema: D, content: JsonValue): MessageShape<D> {
  return fromJson(schema, content);
}

/** Read messages, each behind its length as a varint. */
export function messagesOf<D extends DescMessage>(schema: D, data: Uint8Array): MessageShape<D>[] {
  const messages: MessageShape<D>[] = [];
  for (let at = 0; at < data.length; ) {
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data[at++];
      length |= (byte & 127) << shift;
      if (byte < 128) {
        break;
      }
    }
    messages.push(fromBinary(schema, data.subarray(at, at + length)));
    at += length;
  }
  return messages;
}

/** Return bytes with changes, then cut off or filled up with zeros. */
export function changed(data: Uint8Array, { changes = [], length }: Changes): Uint8Array<ArrayBuffer> {
  const found = data.slice();
  for (const { at, bytes, times = 1, flip } of changes) {
    if (flip !== undefined) {
      found[at] ^= Number.parseInt(flip, 16);
    } else {
      found.set(fromHex((bytes ?? "").repeat(times)), at);
    }
  }
  const cut = new Uint8Array(length ?? found.length);
  cut.set(found.subarray(0, cut.length));
  return cut;
}

/** Read bytes from hexadecimal digits. */
export function fromHex(digits: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** Write bytes as hexadecimal digits. */
export function toHex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Read bytes from base64. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Return the SHA-256 of bytes as hexadecimal digits. */
export async function sha256Of(data: BufferSource): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", data)));
}

/** Read a number as JSON has it: some are strings. */
export function number(value: number | string): number {
  return Number(value);
}

/** Tell whether numbers, or lists of numbers, are as equal as two machines compute them. */
export function areClose(found: unknown, expected: unknown, tolerance = 1e-12): boolean {
  if (Array.isArray(expected)) {
    const values = Array.from(found as ArrayLike<unknown>);
    return values.length === expected.length && values.every((value, k) => areClose(value, expected[k], tolerance));
  }
  const [one, other] = [Number(found), Number(expected)];
  return Object.is(one, other) || one === other || Math.abs(one - other) <= tolerance * Math.abs(other) + 1e-300;
}
