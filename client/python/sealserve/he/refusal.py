"""Refusal: the error that says which rows an input grid refuses, and why.

It is composed after the answer to a call has come. Nothing that is sent waits for it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError, OutOfRangeError
from sealserve.he.quantization import InputGrid

_SHOWN = 5  # rows, and features of a row, that a text names


def refusal(grid: InputGrid, rows: NDArray[np.float64], *, clip: bool = False) -> InputError:
    """Compose the error of rows (rows, feature_count), at least one of which the grid refuses.

    The text names rows and features, but never a value. It has no number of a single row, which may
    come from a stream, where its number is another.

    Returns:
        NotFiniteError if any feature is not finite, otherwise OutOfRangeError. A text that names
        features of both kinds says of each what it is.
    """
    not_finite = ~np.isfinite(rows)
    outside = ((rows < grid.minimum) | (rows > grid.maximum)) & ~not_finite & (not clip)
    is_refused = not_finite | outside
    refused = np.flatnonzero(is_refused.any(axis=1))
    named = [
        ("" if len(rows) == 1 else f"row {row}, ") + _features_in_words(grid, rows[row], is_refused[row])
        for row in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "rows"))
    if not named:
        return InputError("the rows changed while they were predicted: hand in rows that stay as they are")
    has_not_finite, has_outside = bool(not_finite.any()), bool(outside.any())
    is_single = np.count_nonzero(is_refused) == 1
    advice = {
        (True, False): "replace it" if is_single else "replace them",
        (False, True): "scores have no guarantee there; "
        f"scale the feature{'' if is_single else 's'}, or ask for clipping",
        (True, True): "replace what is not finite; outside the range scores have no guarantee, "
        "so scale the features, or ask for clipping",
    }[has_not_finite, has_outside]
    kind = NotFiniteError if has_not_finite else OutOfRangeError
    return kind(f"{'; '.join(named)}: {advice}")


def refusal_of_integers(grid: InputGrid, rows: NDArray[np.integer[Any]]) -> InputError:
    """Compose the error of rows of integers (rows, feature_count), at least one of them refused."""
    refused = np.flatnonzero(((rows < 0) | (rows > grid.levels)).any(axis=1))
    named = [f"row {row}" for row in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "rows"))
    return InputError(f"{', '.join(named)}: quantized rows must be within 0..levels of the model's grid")


def _features_in_words(grid: InputGrid, row: NDArray[np.float64], is_refused: NDArray[np.bool_]) -> str:
    """Return which features of a row are refused, and why."""
    refused = np.flatnonzero(is_refused)
    named = [
        f"feature {feature} is {'missing (NaN)' if np.isnan(row[feature]) else 'infinite'}"
        if not np.isfinite(row[feature])
        else f"feature {feature} is outside the model's range {grid.minimum[feature]:g}..{grid.maximum[feature]:g}"
        for feature in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "features"))
    return ", ".join(named)


def _more(count: int, things: str) -> str:
    return f"and {count:,} more {things if count > 1 else things.removesuffix('s')}"
