"""Seen steps: the grids on which calibration rows lie, such as integers, or pixels of k/255."""

import numpy as np
from numpy.typing import NDArray

from sealserve.he.quantization import grid_tolerance, is_off_grid

_COMMON = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 255, 0.1, 0.01, 0.001)
"""Steps that are tried, the widest ones first; the one that the columns suggest is tried too."""
_SAME = 1e-3  # of a step: how far steps may differ that are taken for one
_SEARCHED_VALUES = 1 << 23
_LEAST_VALUES = 4  # of a feature, that make a grid other than that of integers plausible
_LEVELS_A_VALUE = 20  # of which one was seen at least


def seen_steps(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of neighbours on the grid of each feature, float64 (feature_count,).

    It is 0 where no grid is seen: values have to come again and again, and to lie on one of a few
    usual grids, or on the one that most columns suggest.

    Args:
        rows: finite, (rows, feature_count). Of very many, the first ones are searched, and all of
            them are checked.
    """
    searched = rows[: max(2, _SEARCHED_VALUES // max(1, rows.shape[1]))]
    ordered = np.sort(searched, axis=0)
    gaps = np.diff(ordered, axis=0)
    distinct = 1 + np.count_nonzero(gaps, axis=0)
    least_gap = np.where(gaps > 0, gaps, np.inf).min(axis=0, initial=np.inf)
    width = ordered[-1] - ordered[0]
    comes_again = (distinct >= 2) & (2 * distinct <= len(searched))
    step = np.zeros(rows.shape[1])
    for candidate in _COMMON + _suggested(least_gap[comes_again & (distinct >= _LEAST_VALUES)]):
        open_ones = np.flatnonzero(comes_again & (step == 0) & (width >= candidate * (1 - _SAME)))
        is_plausible = (distinct[open_ones] >= _LEAST_VALUES) | (candidate == 1.0)
        is_plausible &= width[open_ones] <= _LEVELS_A_VALUE * distinct[open_ones] * candidate
        tried = open_ones[is_plausible]
        if tried.size:
            step[tried] = np.where(_is_on(rows[:, tried], candidate), candidate, 0.0)
    return step


def _suggested(least_gaps: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the least distance of two values that most columns have, if most have the same."""
    if not least_gaps.size:
        return ()
    middle = float(np.median(least_gaps))
    shared = np.abs(least_gaps - middle) <= _SAME * middle
    return (middle,) if 2 * np.count_nonzero(shared) > least_gaps.size else ()


def _is_on(values: NDArray[np.float64], step: float) -> NDArray[np.bool_]:
    """Tell which columns of values (rows, features) lie on a grid from their least value."""
    is_fine = grid_tolerance(np.abs(values).max(axis=0), step) <= 0.1 * step
    is_off = is_off_grid(values, values.min(axis=0), step, grid_tolerance(np.abs(values), step))
    result: NDArray[np.bool_] = is_fine & ~is_off.any(axis=0)
    return result
