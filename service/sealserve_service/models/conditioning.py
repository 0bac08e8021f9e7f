"""Conditioning: whether the steps of a pipeline fold into weights that mean something.

A step that divides by next to nothing (a whitening PCA of columns that follow from each other, a
scaler of a constant column) makes huge weights out of rounding errors. They cancel in the rows that
the estimator was fitted with, and in no others: the grid alone moves each feature by more.

Steps know how much their features vary in the training rows (`Affine.input_spread`), and how much
their values do (`Affine.output_spread`). For a score that is `W z + c` of the values z of a step,
and `V x + d` of the features x of the first step that knows their spread,

    spread  = |W output_spread|_2    estimates how much the score varies in the training rows
    reach   = |V input_spread|_1     is how much it can vary if the features do, each on its own

so reach / spread tells by how much independent changes of the features, such as rounding, are
amplified. Folding itself adds W offset, whose rounding error is eps |W offset|_1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.affine import Affine

MAX_AMPLIFICATION = 2.0**20
"""A grid has about so many steps at most: one step may move no score by its whole spread."""
MAX_ROUNDING_ERROR = 1e-4
"""Of a score's spread."""
_EPS = float(np.finfo(np.float64).eps)


class Condition(NamedTuple):
    """What one step does to the scores: see the module. Arrays have shape (scores,).

    Attributes:
        spread: of the scores; None where the step does not know.
        reach: of the scores; None where the step does not know.
        rounding_error: of folding the step.
        worst_value: the value of the step that adds most to it.
        noise_count: how many of the step's values are noise.
        value_count: how many values it has.
        uses_noise: whether a score depends on noise.
    """

    spread: NDArray[np.float64] | None
    reach: NDArray[np.float64] | None
    rounding_error: NDArray[np.float64]
    worst_value: int
    noise_count: int
    value_count: int
    uses_noise: bool

    @classmethod
    def of(cls, step: Affine, after: NDArray[np.float64], before: NDArray[np.float64]) -> "Condition":
        """Measure a step.

        Args:
            step: the step.
            after: weights of its values, (scores, values).
            before: weights of its features, (scores, features).
        """
        is_noise = np.zeros(len(step.offset), np.bool_) if step.is_noise is None else step.is_noise
        sizes = np.abs(after)
        rounding_error = _EPS * (sizes @ np.abs(step.offset))
        worst_value = int(np.argmax(sizes.max(axis=0) * np.abs(step.offset)))
        return cls(
            None if step.output_spread is None else np.linalg.norm(sizes * step.output_spread, axis=1),
            None if step.input_spread is None else np.abs(before) @ step.input_spread,
            rounding_error,
            worst_value,
            int(is_noise.sum()),
            len(is_noise),
            bool(np.any(after[:, is_noise])),
        )


def fault(conditions: Sequence[Condition]) -> tuple[int, str] | None:
    """Return which of the steps in their order is ill-conditioned, and why; None if none is."""
    reach = None
    for index, step in enumerate(conditions):
        reach = step.reach if reach is None else reach
        if step.uses_noise:
            return index, (
                f"{step.noise_count} of its {step.value_count} components do not vary in the training rows, and it "
                f"divides them by rounding errors. Fit it with n_components={step.value_count - step.noise_count} or "
                "fewer, leave out columns that are constant or follow from others, or put a StandardScaler before it"
            )
        if step.spread is None:
            continue
        if np.any(step.rounding_error > MAX_ROUNDING_ERROR * step.spread):
            return index, (
                f"its value {step.worst_value} varies so little in the training rows, compared with its size, that "
                "scores would be rounding errors. Leave the column out if it is constant, or subtract a constant from "
                "it before the fit"
            )
        if reach is not None and np.any(reach > MAX_AMPLIFICATION * step.spread):
            return index, (
                "it or a step after it divides by so little that a change of the features by a millionth of their "
                "spread moves the scores as much as the training rows do. Leave out columns that are constant or "
                "follow from others, or keep fewer components"
            )
    return None
