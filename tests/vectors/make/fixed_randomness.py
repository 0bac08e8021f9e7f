"""Fixed randomness: bytes that follow from a label."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def octets(label: str, count: int) -> bytes:
    """So many bytes."""
    return hashlib.shake_256(f"sealserve vectors: {label}".encode()).digest(count)


def integers(label: str, count: int, bound: int) -> NDArray[np.int64]:
    """So many integers of -bound .. bound, (count,)."""
    words = np.frombuffer(octets(label, 4 * count), "<u4")
    return words.astype(np.int64) % (2 * bound + 1) - bound
