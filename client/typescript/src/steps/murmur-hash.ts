/** MurmurHash3 of 32 bits with seed 0, signed. Source: Austin Appleby, MurmurHash3.cpp. */

/** Return the hash of bytes, read as a signed integer. */
export function murmurHash(data: Uint8Array): number {
  const whole = data.length & ~3;
  let h = 0;
  for (let at = 0; at < whole; at += 4) {
    const k = data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24);
    h = (Math.imul(rotated(h ^ mixed(k), 13), 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let at = data.length - 1; at >= whole; at--) {
    tail = (tail << 8) | data[at];
  }
  h ^= mixed(tail) ^ data.length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function mixed(k: number): number {
  return Math.imul(rotated(Math.imul(k, 0xcc9e2d51), 15), 0x1b873593);
}

function rotated(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}
