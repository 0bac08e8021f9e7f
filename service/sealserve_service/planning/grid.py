"""Input ranges and grids of the features: from the operator, from data or from the model.

Ranges are published, and the least and greatest value of a feature may belong to one person. So
what data has given gets a margin, and is rounded outwards. It then tells two or three digits of the
data, and usually stays the same when a model is trained again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.text import counted, feature_in_words, printable_list
from sealserve_service.models.errors import InputRangeError, InputRangeMissingError
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.declared import DeclaredRanges
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.seen_steps import seen_steps

DEFAULT_MARGIN = 0.5
"""Of a range's width, at each end: about one bit of t."""

_UNIT_BITS = 4
"""Ends are multiples of the power of two that is a 16th to an 8th of the width."""

_NATURALLY_BOUND = (np.bool_, np.uint8)
"""Types whose rows are in range, whatever they are."""

_BLOCK_NUMBERS = 1 << 22  # of float64 at once, 32 MB

_SHOWN = 5  # features, or values, that a text names
_BYTE = np.iinfo(np.uint8).max
_RANGES_OF_BYTES = ((0.0, 1.0), (0.0, float(_BYTE)))
"""Given for all features, without rows, they are taken for those of images: a grid of k / 255, or
of integers. Other values are rounded to it, or to a finer one, and lose no guarantee."""


def input_ranges(
    model: LinearModel,
    *,
    input_range: tuple[float, float] | None = None,
    input_step: float | None = None,
    input_margin: float = DEFAULT_MARGIN,
    declared: DeclaredRanges | None = None,
    calibration: NDArray[np.generic] | None = None,
) -> InputRanges:
    """Return the ranges of a model's features, and the grids on which their values lie.

    Args:
        model: its own scaler's range is the last resort.
        input_range: minimum and maximum of all features; it takes precedence over the rows.
        input_step: the distance of neighbours on the grid of all features. A value off the grid
            will be refused.
        input_margin: how far the ranges that data has given are widened at each end, as a share of
            their width. Features of 0 and 1, booleans and bytes have natural bounds instead.
        declared: ranges and steps of single features, and groups of them; they take precedence over
            all others.
        calibration: typical rows, (rows, feature_count). Rows of integers or booleans declare that
            all features are integers.

    Raises:
        InputRangeMissingError: nothing gives a range.
        InputRangeError: range, step or rows do not fit.
    """
    count, names = model.feature_count, model.names_on_grid
    # Rows are checked even if they do not decide the range: the error on them is published.
    rows = None if calibration is None else _check_rows(calibration, count, names)
    known = declared or DeclaredRanges.none(count)
    is_given = known.has_range | (input_range is not None)
    if rows is not None and len(rows) == 1 and not is_given.all():
        raise InputRangeError(
            "one calibration row gives no range: give typical rows, as many as there are, or the range of all features "
            "with --input-range LO,HI"
        )
    with np.errstate(all="ignore"):  # what is not finite is refused below
        low, high = _ranges(model, input_range, rows, calibration, input_margin)
        low, high = np.where(known.has_range, known.minimum, low), np.where(known.has_range, known.maximum, high)
        if (missing := np.isnan(low) & ~is_given).any():
            raise InputRangeMissingError(_missing_text(missing, known, model))
        step = np.where(known.has_step, known.step, np.nan if input_step is None else input_step)
        is_declared = ~np.isnan(step)
        _check_grid(low, high, np.where(is_declared, step, np.where(high > low, high - low, 1.0)), names)
        origin = np.where(is_given, low, 0.0)
        if rows is not None and calibration is not None:
            of_integers = calibration.dtype.kind in "biu"
            step = np.where(is_declared, step, 1.0 if of_integers else seen_steps(rows))
            is_declared |= of_integers & (high > low)
            origin = np.where(is_given, low, rows.min(axis=0))
        elif input_range in _RANGES_OF_BYTES:
            step = np.where(is_declared | known.has_range, step, (high - low) / _BYTE)
        own_step = np.where(is_declared | (step > 0), step, 0.0)
        low, high, own_step = _aligned(low, high, own_step, origin, is_given, is_declared, rows)
    center, outside_share = np.where(low == 0, low, (low + high) / 2), 0.0  # what cannot be negative is often 0
    if rows is not None and calibration is not None:
        center = np.clip(rows.mean(axis=0), low, high)
        if calibration.dtype not in _NATURALLY_BOUND:
            outside_share = _outside_share(rows[:, ~is_given], input_margin)
    return InputRanges(
        minimum=low,
        maximum=high,
        own_step=own_step,
        is_declared=is_declared & (high > low),
        center=center,
        outside_share=outside_share,
        constraints=known.constraints,
    )


def _ranges(
    model: LinearModel,
    input_range: tuple[float, float] | None,
    rows: NDArray[np.float64] | None,
    calibration: NDArray[np.generic] | None,
    margin: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return minimum and maximum of each feature; NaN where nothing gives them."""
    count = model.feature_count
    if input_range is not None:
        return np.full(count, float(input_range[0])), np.full(count, float(input_range[1]))
    if rows is not None and calibration is not None:
        if calibration.dtype == np.bool_:
            return np.zeros(count), np.ones(count)
        if calibration.dtype == np.uint8:
            return np.zeros(count), np.full(count, float(_BYTE))
        low, high = rows.min(axis=0), rows.max(axis=0)
        is_binary = (low == 0) & (high == 1) & ((rows == 0) | (rows == 1)).all(axis=0)
        wide_low, wide_high = _widened(low, high, margin)
        return np.where(is_binary, low, wide_low), np.where(is_binary, high, wide_high)
    if model.input_range is not None:
        return _widened(*model.input_range, margin)
    return np.full(count, np.nan), np.full(count, np.nan)


def _widened(
    minimum: NDArray[np.float64], maximum: NDArray[np.float64], margin: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Widen ranges (feature_count,) by the margin, and then to multiples of a power of two.

    A feature of one value has no width, and is left as it is.
    """
    reach = margin * (maximum - minimum)
    low, high = minimum - reach, maximum + reach
    _, exponents = np.frexp(high - low)  # width < 2^exponent
    unit = np.ldexp(1.0, np.maximum(exponents - _UNIT_BITS, -1022))
    below, above = np.floor(low / unit) * unit, np.ceil(high / unit) * unit
    # An end that is tiny beside the width is 0 in units: one more unit holds it.
    below, above = np.where(below > low, below - unit, below), np.where(above < high, above + unit, above)
    is_wide = maximum > minimum
    return np.where(is_wide, below, minimum), np.where(is_wide, above, maximum)


def _outside_share(rows: NDArray[np.float64], margin: float) -> float:
    """Return the share of rows that are outside the ranges which all other rows would give.

    That is what to expect of rows that have given no range. Only the least and the greatest value
    of a feature can be outside.
    """
    count, features = rows.shape
    outside: set[int] = set()
    size = max(1, _BLOCK_NUMBERS // count)
    for first in range(0, features if count > 2 else 0, size):
        for block in (rows[:, first : first + size], -rows[:, first : first + size]):
            columns, last = np.arange(block.shape[1]), block.argmax(axis=0)
            others = block.copy()
            others[last, columns] = others[last - 1, columns]
            _, high = _widened(others.min(axis=0), others.max(axis=0), margin)
            outside.update(last[block[last, columns] > high].tolist())
    return float(len(outside) / count)


def _aligned(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    step: NDArray[np.float64],
    origin: NDArray[np.float64],
    is_given: NDArray[np.bool_],
    is_declared: NDArray[np.bool_],
    rows: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Move the ends of ranges outwards onto the features' own grids.

    Ranges that are given stay as they are. Rows that are on another grid than the one from a given
    minimum have shown none.
    """
    has_step = (step > 0) & (high > low)
    unit = np.where(has_step, step, 1.0)
    if rows is not None:
        shift = (rows.min(axis=0) - origin) / unit
        has_step &= is_declared | (np.abs(shift - np.rint(shift)) <= 1e-3)
    moves = has_step & ~is_given
    outer_low = origin + np.floor((low - origin) / unit + 1e-9) * unit
    outer_high = origin + np.ceil((high - origin) / unit - 1e-9) * unit
    return np.where(moves, outer_low, low), np.where(moves, outer_high, high), np.where(has_step, step, 0.0)


def _check_grid(
    low: NDArray[np.float64], high: NDArray[np.float64], step: NDArray[np.float64], names: Sequence[str]
) -> None:
    try:
        InputGrid.of(len(low), low, high, step)
    except InputError as error:
        raise InputRangeError(_grid_fault(low, high, step, names) or str(error)) from error


def _grid_fault(
    low: NDArray[np.float64], high: NDArray[np.float64], step: NDArray[np.float64], names: Sequence[str]
) -> str:
    """Return what is wrong with the first features that no grid takes, a text for each fault."""
    features = dict[str, list[int]]()
    for feature in range(len(low)):
        try:
            InputGrid.of(1, low[feature], high[feature], step[feature])
        except InputError as error:
            features.setdefault(str(error), []).append(feature)
    of_all = len(low)
    return "; ".join(
        fault if len(found) == of_all else f"{_listed(found, names)}: {fault}" for fault, found in features.items()
    )


def _missing_text(missing: NDArray[np.bool_], known: DeclaredRanges, model: LinearModel) -> str:
    if model.published is not None:
        return _missing_of_steps(missing, model.published.columns)
    if known.has_range.any():
        return (
            f"the range of {_listed(np.flatnonzero(missing).tolist(), model.names_on_grid)} is unknown: add it to "
            "--input-ranges, or give --input-range LO,HI or --calibration"
        )
    return (
        "the range of the features is unknown: give one for all with --input-range LO,HI, one for each with "
        "--input-ranges FILE, or typical rows with --calibration FILE"
    )


def _missing_of_steps(missing: NDArray[np.bool_], columns: Sequence[Column]) -> str:
    """Say what to give if ranges are missing of features that published steps compute."""
    count = counted(int(np.count_nonzero(missing)), "features")
    text = f"the range of {count} that clients compute is unknown: give typical rows with --calibration FILE"
    has_range = (ColumnKind.NUMBER, ColumnKind.INTEGER, ColumnKind.BOOLEAN)
    without = [k for k, column in enumerate(columns) if column.kind in has_range and np.isinf(column.range).any()]
    if not without:
        return text
    named = printable_list(tuple(columns[k].name or k for k in without), _SHOWN)
    return f"{text}, or ranges of the columns that they are computed from with --input-ranges FILE: of {named}"


def _check_rows(calibration: NDArray[np.generic], feature_count: int, names: Sequence[str]) -> NDArray[np.float64]:
    if calibration.ndim != 2 or calibration.shape[1] != feature_count or not len(calibration):
        raise InputRangeError(f"calibration rows have shape (rows, {feature_count}), not {calibration.shape}")
    if calibration.dtype.kind not in "biuf":
        raise InputRangeError(f"calibration rows are numbers, not {calibration.dtype}")
    rows = calibration.astype(np.float64)
    if not (is_finite := np.isfinite(rows)).all():
        places = np.argwhere(~is_finite)
        named = [f"row {row}, {_listed([feature], names)}" for row, feature in places[:_SHOWN].tolist()]
        more = f"; and {len(places) - _SHOWN:,} more values" if len(places) > _SHOWN else ""
        raise InputRangeError(
            f"calibration values are missing or infinite: {'; '.join(named)}{more}: replace them, or leave the rows out"
        )
    return rows


def _listed(features: Sequence[int], names: Sequence[str]) -> str:
    """Name the first of some features."""
    named = [feature_in_words(feature, names[feature] if names else None) for feature in features[:_SHOWN]]
    more = f" and {len(features) - _SHOWN:,} more" if len(features) > _SHOWN else ""
    return ", ".join(named) + more
