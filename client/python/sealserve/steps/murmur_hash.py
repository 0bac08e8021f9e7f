"""MurmurHash3 of many byte strings at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def murmur_hash(keys: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the 32-bit MurmurHash3 (x86) of byte strings with seed 0, as signed integers.

    Source: Austin Appleby, MurmurHash3.cpp (public domain). Keys of one length go together.
    """
    hashes = np.zeros(len(keys), np.uint32)
    by_length: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(position)
    for length, positions in by_length.items():
        joined = b"".join(keys[position] for position in positions)
        octets = np.frombuffer(joined, np.uint8).reshape(len(positions), length)
        hashes[positions] = _hash_of_equal_lengths(octets)
    return hashes.view(np.int32).astype(np.int64)


def _hash_of_equal_lengths(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Hash keys (keys, length)."""
    count, length = octets.shape
    blocks = length // 4
    h = np.zeros(count, np.uint32)
    words = np.ascontiguousarray(octets[:, : 4 * blocks]).view("<u4").astype(np.uint32)
    for block in range(blocks):
        h = _rotated(h ^ _mixed(words[:, block]), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    if tail := length % 4:
        k = np.zeros(count, np.uint32)
        for place in range(tail):
            k |= octets[:, 4 * blocks + place].astype(np.uint32) << np.uint32(8 * place)
        h ^= _mixed(k)
    h ^= np.uint32(length)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def _mixed(k: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return _rotated(k * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(x: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))
