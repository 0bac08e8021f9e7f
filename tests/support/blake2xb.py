"""The expansion of a seed as keys.proto describes it, without SEAL.

Sources: RFC 7693 (BLAKE2b) and https://www.blake2.net/blake2x.pdf (BLAKE2Xb).
"""

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_OUTPUT_BYTES = 4096
_NODE_BYTES = 64
_IV = np.array(
    [
        *(0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1),
        *(0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179),
    ],
    np.uint64,
)
_ORDERS = [  # of the words of the message, by round
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
]
_QUARTERS = [(i, 4 + i, 8 + i, 12 + i) for i in range(4)]
_QUARTERS += [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]


def _rotated(words: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return (words >> np.uint64(bits)) | (words << np.uint64(64 - bits))


def _nodes(root: bytes) -> NDArray[np.uint64]:
    """BLAKE2b of a root at each node of the output, (nodes, 8) words."""
    count = _OUTPUT_BYTES // _NODE_BYTES
    state = np.tile(_IV, (count, 1))
    # Digest length, key length, fan-out, depth, leaf length; node offset, output length; inner
    # length.
    state[:, 0] ^= np.frombuffer(struct.pack("<BBBBI", _NODE_BYTES, 0, 0, 0, _NODE_BYTES), np.uint64)
    state[:, 1] ^= np.arange(count, dtype=np.uint64) | np.uint64(_OUTPUT_BYTES << 32)
    state[:, 2] ^= np.uint64(_NODE_BYTES << 8)
    message = np.frombuffer(root.ljust(128, b"\0"), np.uint64)
    v = [*state.T.copy(), *np.tile(_IV, (count, 1)).T]
    v[12] = v[12] ^ np.uint64(len(root))
    v[14] = ~v[14]  # the last block
    for number in range(12):
        order = _ORDERS[number % 10]
        for index, (a, b, c, d) in enumerate(_QUARTERS):
            v[a] = v[a] + v[b] + message[order[2 * index]]
            v[d] = _rotated(v[d] ^ v[a], 32)
            v[c] = v[c] + v[d]
            v[b] = _rotated(v[b] ^ v[c], 24)
            v[a] = v[a] + v[b] + message[order[2 * index + 1]]
            v[d] = _rotated(v[d] ^ v[a], 16)
            v[c] = v[c] + v[d]
            v[b] = _rotated(v[b] ^ v[c], 63)
    nodes: NDArray[np.uint64] = state ^ np.array(v[:8]).T ^ np.array(v[8:]).T
    return nodes


def _words(seed: bytes) -> Iterator[int]:
    """Yield the words of the stream."""
    number = 0
    while True:
        message = number.to_bytes(8, "little")
        root = hashlib.blake2b(message, key=seed, node_offset=_OUTPUT_BYTES << 32).digest()
        yield from _nodes(root).ravel().tolist()
        number += 1


def expanded(seed: bytes, primes: tuple[int, ...], degree: int) -> NDArray[np.uint64]:
    """Expand a seed into a polynomial, (primes, degree)."""
    words = _words(seed)
    values = [[next(words) for _ in range(degree)] for _ in primes]
    greatest = 2**64 - 1
    for prime, row in zip(primes, values, strict=True):
        for index, word in enumerate(row):
            while word >= greatest - greatest % prime - 1:
                word = next(words)
            row[index] = word % prime
    return np.array(values, np.uint64)
