"""Input ranges: of each feature its range and, where it has one, its own grid."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.he.quantization import InputGrid


@dataclass(frozen=True, eq=False, kw_only=True)
class InputRanges:
    """What is known of the features before steps are chosen.

    All arrays have the shape (feature_count,), in the features' own units.

    Attributes:
        minimum, maximum: the range that is published.
        own_step: the distance of neighbours on the grid that a feature's values lie on; 0 for a
            feature of which no grid is known. The minimum is on that grid.
        is_declared: whether a feature's grid is declared. A client refuses a value that is off it.
            Of other grids rows have been seen, and further values may be off them.
        center: where the rounding of weights adds no error: the mean of the calibration rows;
            without rows the middle of the range, or 0 where the range begins there.
        outside_share: the share of clients' rows that is expected to be out of range, where
            calibration rows have given the ranges.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    own_step: NDArray[np.float64]
    is_declared: NDArray[np.bool_]
    center: NDArray[np.float64]
    outside_share: float = 0.0

    @cached_property
    def width(self) -> NDArray[np.float64]:
        """Maximum less minimum."""
        width: NDArray[np.float64] = self.maximum - self.minimum
        return width

    @cached_property
    def own_levels(self) -> NDArray[np.float64]:
        """The greatest integer on a feature's own grid; 0 where it has none, or one value."""
        has_own = (self.own_step > 0) & (self.width > 0)
        return np.where(has_own, np.rint(self.width / np.where(has_own, self.own_step, 1.0)), 0.0)

    @property
    def without_seen_grids(self) -> "InputRanges":
        """The same ranges, with the declared grids only."""
        return dataclasses.replace(self, own_step=np.where(self.is_declared, self.own_step, 0.0))

    def grid(self, step: NDArray[np.float64], is_on_own_grid: NDArray[np.bool_]) -> InputGrid:
        """Return the grid of these steps.

        A feature of one value has one level, 0, whatever its step is: its weight has no part in
        scale, t or A'.

        Args:
            step: of each feature.
            is_on_own_grid: whether a step divides the step of the feature's own grid.
        """
        is_constant = self.width == 0
        return InputGrid.of(
            len(step),
            self.minimum,
            self.maximum,
            np.where(is_constant, 1.0, step),
            keeps=is_on_own_grid & self.is_declared & ~is_constant,
        )
