"""Input grid: the range of each feature, from the operator, from data or from the model."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.errors import InputError
from sealserve.he.quantization import InputGrid
from sealserve_service.models.errors import InputRangeError, InputRangeMissingError
from sealserve_service.models.linear_model import LinearModel


def input_grid(
    model: LinearModel,
    *,
    input_range: tuple[float, float] | None = None,
    input_step: float | None = None,
    calibration: NDArray[np.generic] | None = None,
) -> InputGrid:
    """Return the grid on which a model's features are quantized.

    Args:
        model: its own scaler's range is the last resort.
        input_range: minimum and maximum of all features; it takes precedence over the rows.
        input_step: distance of neighbours on the grid, for all features; by default 1/255 of each
            feature's range.
        calibration: typical rows, (rows, feature_count); each feature ranges over their values,
            rounded outwards.

    Raises:
        InputRangeMissingError: none of the three gives a range.
        InputRangeError: range, step or rows do not fit.
    """
    # Rows are checked even if they do not decide the range: the error on them is published.
    rows = None if calibration is None else _check_rows(calibration, model.feature_count)
    bounds: tuple[ArrayLike, ArrayLike] | None = model.input_range
    if input_range is not None:
        bounds = input_range
    elif rows is not None and len(rows) == 1:
        raise InputRangeError(
            "one calibration row gives no range: give typical rows, as many as there are, or the range of all features "
            "with --input-range LO,HI"
        )
    elif rows is not None:
        bounds = _rounded_outwards(rows.min(axis=0), rows.max(axis=0))
    if bounds is None:
        raise InputRangeMissingError(
            "the range of the features is unknown: give one for all with --input-range LO,HI, or typical rows with "
            "--calibration FILE"
        )
    try:
        return InputGrid.of(model.feature_count, *bounds, input_step)
    except InputError as error:
        raise InputRangeError(str(error)) from error


def _rounded_outwards(
    minimum: NDArray[np.float64], maximum: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Widen ranges (feature_count,) to multiples of a 128th of their width, or of less.

    Ranges are published, and the least and greatest value of a feature may belong to one person.
    The multiple is of a power of two, so that integers stay the bounds of up to 256 integers. A
    feature of one value has no width, and is left as it is.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        _, exponents = np.frexp(maximum - minimum)  # width < 2^exponent
        unit = np.where(maximum > minimum, np.ldexp(1.0, np.maximum(exponents - 8, -1022)), 1.0)
        # A value that is tiny beside the unit may vanish in the division.
        lower = np.minimum(np.floor(minimum / unit) * unit, minimum)
        upper = np.maximum(np.ceil(maximum / unit) * unit, maximum)
    is_wide = maximum > minimum
    return np.where(is_wide, lower, minimum), np.where(is_wide, upper, maximum)


def _check_rows(calibration: NDArray[np.generic], feature_count: int) -> NDArray[np.float64]:
    if calibration.ndim != 2 or calibration.shape[1] != feature_count or not len(calibration):
        raise InputRangeError(f"calibration rows have shape (rows, {feature_count}), not {calibration.shape}")
    if calibration.dtype.kind not in "biuf":
        raise InputRangeError(f"calibration rows are numbers, not {calibration.dtype}")
    rows = calibration.astype(np.float64)
    if not np.isfinite(rows).all():
        row, feature = np.argwhere(~np.isfinite(rows))[0]
        raise InputRangeError(f"calibration rows are finite; row {row} is not, at feature {feature}")
    return rows
