/**
 * Integers of equally many bits, one behind the other.
 *
 * Value i takes the bits i b .. i b + b - 1 of the whole, the least significant first. Bit j of the
 * whole is bit j % 8 of byte j / 8, rounded down. What is left of the last byte is 0.
 */

/** The fewest bits of a packed value. */
export const MIN_BITS = 8;
/** The most bits of a packed value. */
export const MAX_BITS = 80;

const WORD_BYTES = 8;
// A piece of a value, with the bits of its byte before it, fits an int32.
const PIECE_BITS = 20;
// Above, a value has an even number of bits.
const MAX_ODD_BITS = 54;

/** Return the length of so many packed values. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

/** Tell whether values of a packed reply can have so many bits. */
export function arePossibleBits(bits: number): boolean {
  return bits >= MIN_BITS && bits <= MAX_BITS && (bits <= MAX_ODD_BITS || bits % 2 === 0);
}

/** Tell whether these are so many packed values and nothing else. */
export function isPacked(data: Uint8Array, bits: number, count: number): boolean {
  const spareBits = (8 - ((count * bits) % 8)) % 8;
  if (data.length !== packedBytes(count, bits)) {
    return false;
  }
  return spareBits === 0 || data[data.length - 1] >> (8 - spareBits) === 0;
}

/**
 * Read bits of packed values.
 *
 * @param at the first bit.
 * @param count how many bits, 0..20. Bits behind the end of `data` are 0.
 */
export function bitsAt(data: Uint8Array, at: number, count: number): number {
  const byte = at >>> 3;
  const word =
    (data[byte] ?? 0) | ((data[byte + 1] ?? 0) << 8) | ((data[byte + 2] ?? 0) << 16) | ((data[byte + 3] ?? 0) << 24);
  return (word >>> (at & 7)) & ((1 << count) - 1);
}

/**
 * Pack 64-bit little-endian integers, each below 2^bits.
 *
 * @param bits at most 60.
 */
export function packWords(words: Uint8Array, bits: number): Uint8Array {
  const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  const packed = new Uint8Array(packedBytes(words.length / WORD_BYTES, bits));
  let at = 0;
  let pending = 0;
  let pendingBits = 0;
  for (let offset = 0; offset < words.length; offset += WORD_BYTES) {
    const low = view.getUint32(offset, true);
    const high = view.getUint32(offset + 4, true);
    const pieces = [low & 0xfffff, (low >>> PIECE_BITS) | ((high & 0xff) << 12), high >>> 8];
    for (let piece = 0, left = bits; left > 0; piece++, left -= PIECE_BITS) {
      pending |= pieces[piece] << pendingBits;
      pendingBits += Math.min(left, PIECE_BITS);
      while (pendingBits >= 8) {
        packed[at++] = pending & 0xff;
        pending >>>= 8;
        pendingBits -= 8;
      }
    }
  }
  if (pendingBits > 0) {
    packed[at] = pending;
  }
  return packed;
}
