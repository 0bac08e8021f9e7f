"""Refusal: the error that says which rows an input grid refuses, and why.

It is composed after the answer to a call has come. Nothing that is sent waits for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.text import feature_in_words, rows_in_words

_Kind = tuple[NDArray[np.bool_], Callable[[int], str]]

_SHOWN = 5  # features that a text names, and rows of each
_CLIPPING = "pass clip=True (--clip) for the prediction at the nearest end of the range, which may be another"


@dataclass(frozen=True, eq=False)
class RefusedFeatures:
    """What a grid refuses of rows, and why.

    Attributes:
        grid: the input grid.
        rows: float64 (rows, feature_count).
        not_finite, outside, off: bool (rows, feature_count): a feature is missing or infinite,
            outside its range, or between two values of a grid that it should be on.
    """

    grid: InputGrid
    rows: NDArray[np.float64]
    not_finite: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    off: NDArray[np.bool_]

    @classmethod
    def of(cls, grid: InputGrid, rows: NDArray[np.float64], *, clip: bool = False) -> "RefusedFeatures":
        """Find the faults of rows (rows, feature_count)."""
        not_finite = ~np.isfinite(rows)
        outside = ((rows < grid.least) | (rows > grid.greatest)) & ~not_finite & (not clip)
        judged = np.clip(np.where(not_finite, grid.minimum, rows), grid.least, grid.greatest)
        off = grid.is_off(np.clip(judged, grid.minimum, grid.maximum) if clip else judged) & ~not_finite & ~outside
        return cls(grid, rows, not_finite, outside, off)

    @property
    def is_refused(self) -> NDArray[np.bool_]:
        """Which features are refused, bool (rows, feature_count)."""
        return self.not_finite | self.outside | self.off

    def in_words(self, names: Sequence[str]) -> str:
        """Name the first refused features, each with its fault and its rows, but never a value.

        A single row has no number: it may come from a stream, where its number is another.

        Args:
            names: of the features' columns; empty if they have none.
        """
        grid, is_missing = self.grid, np.isnan(self.rows)
        kinds: list[_Kind] = [
            (is_missing, lambda _: "is missing (NaN)"),
            (self.not_finite & ~is_missing, lambda _: "is infinite"),
            (self.outside, lambda k: f"is outside the model's range {grid.minimum[k]:g}..{grid.maximum[k]:g}"),
            (
                self.off,
                lambda k: f"is not on the model's grid, {grid.minimum[k]:g} and multiples of {grid.step[k]:g} above it",
            ),
        ]
        return _in_words(kinds, names)


def refusal(grid: InputGrid, rows: NDArray[np.float64], names: Sequence[str] = (), *, clip: bool = False) -> InputError:
    """Compose the error of rows (rows, feature_count), at least one of which the grid refuses.

    Args:
        grid: the input grid.
        rows: float64 (rows, feature_count).
        names: of the features' columns; empty if they have none.
        clip: whether features outside the range are moved to its nearest end.

    Returns:
        NotFiniteError if any feature is not finite, otherwise OutOfRangeError if any is outside its
        range, otherwise OffGridError. A text that names features of several kinds says of each what
        it is.
    """
    faults = RefusedFeatures.of(grid, rows, clip=clip)
    refused_count = np.count_nonzero(faults.is_refused)
    if not refused_count:
        return InputError("the rows changed while they were predicted: hand in rows that stay as they are")
    has_not_finite, has_outside, has_off = (
        bool(kind.any()) for kind in (faults.not_finite, faults.outside, faults.off)
    )
    features, them = ("feature", "it") if refused_count == 1 else ("features", "them")
    is_mixed = has_not_finite + has_outside + has_off > 1
    advice = []
    if has_not_finite:
        advice.append("replace what is not finite" if is_mixed else f"replace {them}")
    if has_outside:
        advice.append(
            f"outside the range scores have no guarantee, so scale the features, or {_CLIPPING}"
            if is_mixed
            else f"scores have no guarantee there; scale the {features}, or {_CLIPPING}"
        )
    if has_off:
        advice.append(
            "round what is off the grid" if is_mixed else f"the model takes no value between; round the {features}"
        )
    kind = NotFiniteError if has_not_finite else OutOfRangeError if has_outside else OffGridError
    return kind(f"{faults.in_words(names)}: {'; '.join(advice)}")


def refusal_of_integers(grid: InputGrid, rows: NDArray[np.integer[Any]], names: Sequence[str] = ()) -> InputError:
    """Compose the error of rows of integers (rows, feature_count), at least one of them refused."""
    is_refused = (rows < 0) | (rows > grid.levels)
    places = _in_words([(is_refused, lambda k: f"is not within 0..{grid.levels[k]}")], names)
    return InputError(f"{places}: quantized rows must be within 0..levels of the model's grid")


def _in_words(kinds: Sequence[_Kind], names: Sequence[str]) -> str:
    """Name the first features at fault, in the order of their first rows.

    Args:
        kinds: which features (rows, feature_count) have a kind of fault, and what it is of each.
        names: of the features' columns; empty if they have none.
    """
    found = list[tuple[int, int, int]]()
    for kind, (is_at_fault, _) in enumerate(kinds):
        features = np.flatnonzero(is_at_fault.any(axis=0))
        first_rows = is_at_fault[:, features].argmax(axis=0)
        found += zip(first_rows.tolist(), features.tolist(), [kind] * len(features), strict=True)
    found.sort()
    named = list[str]()
    for _, feature, kind in found[:_SHOWN]:
        is_at_fault, fault = kinds[kind]
        rows = np.flatnonzero(is_at_fault[:, feature])
        where = "" if len(is_at_fault) == 1 else f"{rows_in_words(rows[:_SHOWN].tolist(), len(rows))}, "
        named.append(f"{where}{feature_in_words(feature, names[feature] if names else None)} {fault(feature)}")
    if hidden := len({feature for _, feature, _ in found} - {feature for _, feature, _ in found[:_SHOWN]}):
        named.append(f"and {hidden:,} more {'feature' if hidden == 1 else 'features'}")
    return "; ".join(named)
