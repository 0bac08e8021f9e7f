"""Input ranges: of each feature its range and its own grid, and what is known of whole rows."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints, Span

_SPREAD = 1 / 8
"""Of its width, the root mean square of how far a feature is expected to be from its centre."""


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
        constraints: exclusive groups and norms. The own grid of a feature of a group is declared,
            and has two values at least.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    own_step: NDArray[np.float64]
    is_declared: NDArray[np.bool_]
    center: NDArray[np.float64]
    outside_share: float = 0.0
    constraints: RowConstraints = field(default_factory=RowConstraints)

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

    @cached_property
    def is_member(self) -> NDArray[np.bool_]:
        """Whether a feature is in an exclusive group."""
        return ~self.constraints.alone(len(self.minimum))

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """How far a feature is expected to be from its centre: root mean square, of its width.

        Of a group of n features, which also may have none at its maximum, each is there in one of
        n + 1 rows: with errors of independent signs n features have the square of n / (n + 1)
        widths together. Of a norm R, n features have R^2 together.
        """
        spread = np.full(len(self.minimum), _SPREAD)
        constraints = self.constraints
        spread[constraints.members] = np.repeat(1 / np.sqrt(constraints.sizes + 1), constraints.sizes)
        for members, bound in constraints.norms:
            width = np.where(self.width[members] > 0, self.width[members], np.inf)
            spread[members] = np.minimum(bound / (width * np.sqrt(len(members))), 1.0)
        return spread

    def extremes(self, at_maximum: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and greatest sums (sums,) of rows off the grid.

        Args:
            at_maximum: what each feature adds at its maximum, (sums, feature_count).
        """
        span = Span(self.minimum, self.maximum, self.width, np.zeros_like(self.width))
        return self.constraints.extremes(at_maximum, span)

    @cached_property
    def equal_weights_range(self) -> float:
        """The range of a score to which each feature adds 0 to 1, or -1 to 0: at least 1.

        In a group, and in a norm, the signs alternate. Without constraints it is the number of
        features that vary; of a group it is 2, or 1 if it has a single feature.
        """
        signs = np.ones(len(self.minimum))
        constraints = self.constraints
        signs[constraints.members[1::2]] = -1.0
        for members, _ in constraints.norms:
            signs[members[1::2]] = -1.0
        low, high = self.extremes(np.where(self.width > 0, signs, 0.0)[None])
        return max(1.0, float((high - low)[0]))

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
            constraints=self.constraints,
        )
