"""The search for a pair that must outlive no call, of which SealSpy has seen every byte."""

import sys
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType

import numpy as np

from sealserve.he import _seal
from tests.support.seal_spy import SealSpy, ciphertext_bytes

_HEADERS_BYTES = 128  # more than there are before the residues


def _secret_pieces(spy: SealSpy) -> set[bytes]:
    """The residues of (c0, c1), and of (c0, c1 - c1') in NTT form: two by two, 16 bytes.

    No piece occurs anywhere else by chance. Headers are left out, because all ciphertexts have
    them, and so are residues modulo special primes, because two of them have 34 bits only. The
    second pair is there once it has been made.
    """
    assert spy.pairs
    secrets = (data[len(data) % 8 + _HEADERS_BYTES :] for data in spy.pairs + spy.differences)
    found = {data[at : at + 16] for data in secrets for at in range(0, len(data) - 15, 8)}
    return {piece for piece in found if any(piece[4:8] + piece[12:])}


def _pieces(data: bytes) -> set[bytes]:
    """The 16 bytes from every place on."""
    return {data[at : at + 16] for at in range(len(data) - 15)}


def reachable(root: object) -> Iterator[object]:
    """All objects that attributes, containers and closures lead to, without code and modules."""
    seen: set[int] = set()
    open_ones = [root]
    while open_ones:
        value = open_ones.pop()
        if id(value) in seen or isinstance(value, SealSpy | type):
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            open_ones += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            open_ones += value
        elif hasattr(value, "__dict__"):
            open_ones += vars(value).values()


def contents(value: object) -> bytes:
    """The bytes of whatever has any."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, _seal.Ciphertext):
        return ciphertext_bytes(value)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""


def assert_nothing_is_left(spy: SealSpy) -> None:
    """SEAL's objects are gone, and nothing but the spy's list refers to the bytes."""
    assert spy.objects
    assert [reference() for reference in spy.objects] == [None] * len(spy.objects)
    one_reference = [sys.getrefcount(data) for data in [bytes([7]) * 1000]]
    assert [sys.getrefcount(data) for data in spy.data] == one_reference * len(spy.data)


def assert_secret(spy: SealSpy, values: Iterable[object]) -> None:
    """None of the values holds a piece of the pair."""
    secret = _secret_pieces(spy)
    for value in values:
        assert not secret & _pieces(contents(value))


def frames_below(error: BaseException | None, test_file: str) -> Iterator[FrameType]:
    """The frames of an error and of what caused it, but for those of the test's own file."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != test_file:
                yield frame
        error = error.__context__
