"""Refusal: the error that says which rows an input grid refuses, and why.

It is composed after the answer to a call has come. Nothing that is sent waits for it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import InputGrid

_SHOWN = 5  # rows, and features of a row, that a text names


def refusal(grid: InputGrid, rows: NDArray[np.float64], *, clip: bool = False) -> InputError:
    """Compose the error of rows (rows, feature_count), at least one of which the grid refuses.

    The text names rows and features, but never a value. It has no number of a single row, which may
    come from a stream, where its number is another.

    Returns:
        NotFiniteError if any feature is not finite, otherwise OutOfRangeError if any is outside its
        range or a row breaks a group, otherwise OffGridError. A text that names features of several
        kinds says of each what it is.
    """
    not_finite = ~np.isfinite(rows)
    outside = ((rows < grid.least) | (rows > grid.greatest)) & ~not_finite & (not clip)
    judged = np.clip(np.where(not_finite, grid.minimum, rows), grid.least, grid.greatest)
    off = grid.is_off(np.clip(judged, grid.minimum, grid.maximum) if clip else judged) & ~not_finite & ~outside
    is_refused = not_finite | outside | off
    broken = _broken_groups(grid, judged, is_refused)
    refused = np.flatnonzero(is_refused.any(axis=1) | broken.any(axis=1))
    named = [
        ("" if len(rows) == 1 else f"row {row}, ")
        + ", ".join(
            filter(
                None,
                (
                    _features_in_words(grid, rows[row], off[row], is_refused[row]),
                    _groups_in_words(grid, broken[row]),
                ),
            )
        )
        for row in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "rows"))
    if not named:
        return InputError("the rows changed while they were predicted: hand in rows that stay as they are")
    has_not_finite, has_outside, has_off = bool(not_finite.any()), bool(outside.any()), bool(off.any())
    features = "feature" if np.count_nonzero(is_refused) == 1 else "features"
    has_broken = bool(broken.any())
    is_mixed = has_not_finite + has_outside + has_off + has_broken > 1
    advice = []
    if has_not_finite:
        them = "it" if features == "feature" else "them"
        advice.append("replace what is not finite" if is_mixed else f"replace {them}")
    if has_outside:
        advice.append(
            "outside the range scores have no guarantee, so scale the features, or ask for clipping"
            if is_mixed
            else f"scores have no guarantee there; scale the {features}, or ask for clipping"
        )
    if has_off:
        advice.append(
            "round what is off the grid" if is_mixed else f"the model takes no value between; round the {features}"
        )
    if has_broken:
        advice.append("of the features of a group, set as many to their maximum as the model expects")
    kind = NotFiniteError if has_not_finite else OutOfRangeError if has_outside or has_broken else OffGridError
    return kind(f"{'; '.join(named)}: {'; '.join(advice)}")


def refusal_of_integers(grid: InputGrid, rows: NDArray[np.integer[Any]]) -> InputError:
    """Compose the error of rows of integers (rows, feature_count), at least one of them refused."""
    refused = np.flatnonzero(grid.refuses_integers(rows))
    named = [f"row {row}" for row in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "rows"))
    groups = ", and keep to its groups" if grid.has_groups else ""
    return InputError(f"{', '.join(named)}: quantized rows must be within 0..levels of the model's grid{groups}")


def _features_in_words(
    grid: InputGrid, row: NDArray[np.float64], off: NDArray[np.bool_], is_refused: NDArray[np.bool_]
) -> str:
    """Return which features of a row are refused, and why."""
    refused = np.flatnonzero(is_refused)
    named = []
    for feature in refused[:_SHOWN]:
        minimum, maximum, step = grid.minimum[feature], grid.maximum[feature], grid.kept_step[feature]
        if not np.isfinite(row[feature]):
            fault = f"is {'missing (NaN)' if np.isnan(row[feature]) else 'infinite'}"
        elif off[feature]:
            fault = f"is not on the model's grid, {minimum:g} and multiples of {step:g} above it"
        else:
            fault = f"is outside the model's range {minimum:g}..{maximum:g}"
        named.append(f"feature {feature} {fault}")
    if len(refused) > _SHOWN:
        named.append(_more(len(refused) - _SHOWN, "features"))
    return ", ".join(named)


def _broken_groups(grid: InputGrid, rows: NDArray[np.float64], is_refused: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which groups rows break whose features are all right, bool (rows, checked groups)."""
    if not grid.has_groups:
        return np.zeros((len(rows), 0), np.bool_)
    constraints = grid.constraints.checked
    at_fault = np.logical_or.reduceat(is_refused[:, constraints.members], constraints.starts, axis=1)
    return grid.broken_groups(rows) & ~at_fault


def _groups_in_words(grid: InputGrid, is_broken: NDArray[np.bool_]) -> str:
    """Return which groups a row breaks, by their features."""
    constraints, broken = grid.constraints.checked, np.flatnonzero(is_broken)
    named = []
    for group in broken[:_SHOWN]:
        start, size = constraints.starts[group], constraints.sizes[group]
        features = ", ".join(map(str, constraints.members[start : start + size][:_SHOWN]))
        more = f" and {size - _SHOWN:,} more" if size > _SHOWN else ""
        count = "exactly one" if constraints.exactly_one[group] else "at most one"
        named.append(f"{count} of features {features}{more} has to be at its maximum")
    if len(broken) > _SHOWN:
        named.append(_more(len(broken) - _SHOWN, "groups"))
    return ", ".join(named)


def _more(count: int, things: str) -> str:
    return f"and {count:,} more {things if count > 1 else things.removesuffix('s')}"
