"""Seeds: their expansion into a polynomial, as KEY_KIND_PUBLIC_ENCRYPTION_KEY describes it.

Sources: RFC 7693 (BLAKE2b) and https://www.blake2.net/blake2x.pdf (BLAKE2Xb).
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

_OUTPUT_BYTES = 4096
_DIGEST_BYTES = 64
_MASK = (1 << 64) - 1
_IV = (
    *(0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1),
    *(0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179),
)
_ORDERS = [  # of the words of a block, by round
    [int(digit, 16) for digit in order]
    for order in (
        "0123456789abcdef",
        "ea489fd61c02b753",
        "b8c052fdae367194",
        "7931dcbe265a40f8",
        "905724afe1bc683d",
        "2c6a0b834d75fe19",
        "c51fed4a0763928b",
        "db7ec13950f4862a",
        "6fe9b308c2d714a5",
        "a2847615fb9e3cd0",
    )
]
_MIXED = [(i, 4 + (i + turn) % 4, 8 + (i + 2 * turn) % 4, 12 + (i + 3 * turn) % 4) for turn in (0, 1) for i in range(4)]


@lru_cache
def expanded(seed: bytes, primes: tuple[int, ...], N: int) -> list[list[int]]:
    """Expand a seed into N values for each prime."""
    words = _words(seed)
    drawn = [[next(words) for _ in range(N)] for _ in primes]
    return [[_below(prime, word, words) for word in row] for prime, row in zip(primes, drawn, strict=True)]


def _below(prime: int, word: int, more: Iterator[int]) -> int:
    while word >= _MASK - _MASK % prime - 1:
        word = next(more)
    return word % prime


def _words(seed: bytes) -> Iterator[int]:
    """Yield the words of the stream."""
    number = 0
    while True:
        # BLAKE2X puts the length of the output into the upper half of the offset.
        root = hashlib.blake2b(number.to_bytes(8, "little"), key=seed, node_offset=_OUTPUT_BYTES << 32).digest()
        for node in range(_OUTPUT_BYTES // _DIGEST_BYTES):
            yield from _node(root, node)
        number += 1


def _node(root: bytes, number: int) -> list[int]:
    """BLAKE2b of a root at a node of depth 0, which hashlib does not offer: 8 words."""
    # Digest length, key length, fan-out, depth, leaf length; node offset, length of the output;
    # node depth, inner length.
    parameters = struct.pack("<BBBBIIIBB46x", _DIGEST_BYTES, 0, 0, 0, _DIGEST_BYTES, number, _OUTPUT_BYTES, 0, 64)
    state = [a ^ b for a, b in zip(_IV, struct.unpack("<8Q", parameters), strict=True)]
    mixed = _mixed([*state, *_IV[:4], _IV[4] ^ len(root), _IV[5], ~_IV[6] & _MASK, _IV[7]], root.ljust(128, b"\0"))
    return [h ^ a ^ b for h, a, b in zip(state, mixed[:8], mixed[8:], strict=True)]


def _mixed(v: list[int], block: bytes) -> Sequence[int]:
    """The twelve rounds of BLAKE2b on 16 words."""
    words = struct.unpack("<16Q", block)
    for number in range(12):
        order = iter(_ORDERS[number % 10])
        for i, j, k, m in _MIXED:
            a, b, c, d = v[i], v[j], v[k], v[m]
            for turn_d, turn_b in ((32, 24), (16, 63)):
                a = (a + b + words[next(order)]) & _MASK
                d ^= a
                d = (d >> turn_d | d << 64 - turn_d) & _MASK
                c = (c + d) & _MASK
                b ^= c
                b = (b >> turn_b | b << 64 - turn_b) & _MASK
            v[i], v[j], v[k], v[m] = a, b, c, d
    return v
