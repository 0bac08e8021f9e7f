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
from sealserve.protocol.text import feature_in_words

_SHOWN = 5  # rows, and features of a row, that a text names
_CLIPPING = "pass clip=True (--clip) to predict another row instead, moved to the nearest end of the range"


@dataclass(frozen=True, eq=False)
class Faults:
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
    def of(cls, grid: InputGrid, rows: NDArray[np.float64], *, clip: bool = False) -> "Faults":
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
        """Name the first refused rows and features, each with its fault, but never a value.

        A single row has no number: it may come from a stream, where its number is another.

        Args:
            names: of the features' columns; empty if they have none.
        """
        return _places_in_words(self.is_refused, names, self._fault)

    def _fault(self, row: int, feature: int) -> str:
        minimum, maximum, step = (values[feature] for values in (self.grid.minimum, self.grid.maximum, self.grid.step))
        if self.not_finite[row, feature]:
            return "is missing (NaN)" if np.isnan(self.rows[row, feature]) else "is infinite"
        if self.off[row, feature]:
            return f"is not on the model's grid, {minimum:g} and multiples of {step:g} above it"
        return f"is outside the model's range {minimum:g}..{maximum:g}"


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
    faults = Faults.of(grid, rows, clip=clip)
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
    places = _places_in_words(is_refused, names, lambda _, feature: f"is not within 0..{grid.levels[feature]}")
    return InputError(f"{places}: quantized rows must be within 0..levels of the model's grid")


def _places_in_words(is_refused: NDArray[np.bool_], names: Sequence[str], fault: Callable[[int, int], str]) -> str:
    """Name the first refused rows, and of each its first refused features.

    Args:
        is_refused: bool (rows, feature_count).
        names: of the features' columns; empty if they have none.
        fault: says of a row's feature what is wrong with it.
    """
    named = list[str]()
    refused = np.flatnonzero(is_refused.any(axis=1)).tolist()
    for row in refused[:_SHOWN]:
        features = np.flatnonzero(is_refused[row]).tolist()
        shown = [
            f"{feature_in_words(feature, names[feature] if names else None)} {fault(row, feature)}"
            for feature in features[:_SHOWN]
        ]
        if len(features) > _SHOWN:
            shown.append(_more(len(features) - _SHOWN, "features"))
        named.append(("" if len(is_refused) == 1 else f"row {row}, ") + ", ".join(shown))
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "rows"))
    return "; ".join(named)


def _more(count: int, things: str) -> str:
    return f"and {count:,} more {things if count > 1 else things.removesuffix('s')}"
