"""The grid: rows of features, rounded to integers or refused, as the comments of Input have it."""

import math
from collections.abc import Sequence

from sealserve.v1 import model_pb2

_OF_FLOAT32 = 2.0**-22


def levels(message: model_pb2.Input) -> list[int]:
    """The greatest integer of each feature."""
    return [round((high - low) / step) for low, high, step in _by_feature(message)]


def cells(message: model_pb2.Input, row: Sequence[float]) -> list[int] | None:
    """The integers of a row of features; None if it is refused."""
    keeps = list(message.keeps) or [False]
    keeps *= message.feature_count // len(keeps)
    groups = list(message.group) or [0] * message.feature_count
    found, at_maximum = list[int](), [0] * len(message.exactly_one)
    for x, (low, high, step), kept, group in zip(row, _by_feature(message), keeps, groups, strict=True):
        cell = _cell(x, low, high, step)
        if cell is None:
            return None
        distance = high - low if group else step  # of neighbours on the grid
        off = abs(x - (low + round((x - low) / distance) * distance))
        if kept and off > max(step / 1000, abs(x) * _OF_FLOAT32):
            return None
        if group:
            at_maximum[group - 1] += cell > 0
        found.append(cell)
    broken = any(n > 1 or (exact and n < 1) for n, exact in zip(at_maximum, message.exactly_one, strict=True))
    return None if broken else found


def _cell(x: float, low: float, high: float, step: float) -> int | None:
    if not math.isfinite(x):
        return None
    greatest, cell = round((high - low) / step), round((x - low) / step)
    off = max(low - x, x - high)
    if (not 0 <= cell <= greatest or not greatest) and off > abs(x) * _OF_FLOAT32:
        return None
    return min(max(cell, 0), greatest)


def _by_feature(message: model_pb2.Input) -> list[tuple[float, float, float]]:
    """Minimum, maximum and step of each feature."""
    count = message.feature_count
    lists = [
        [*values] * (count if len(values) == 1 else 1) for values in (message.minimum, message.maximum, message.step)
    ]
    return list(zip(*lists, strict=True))
