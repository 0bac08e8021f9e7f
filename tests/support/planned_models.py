"""Models to plan: weights, intercepts and ranges, and what holds for each of their plans."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve_service.planning import hiding
from sealserve_service.planning.noise import zero_noise
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.planner import _absolute_sum
from sealserve_service.planning.ranges import InputRanges
from tests.support.plans import is_exact

HIDING_BITS = 40


@dataclass(frozen=True, eq=False)
class PlannedModel:
    """Weights (scores, features), intercepts and ranges."""

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    ranges: InputRanges


def disguised(model: PlannedModel, random: np.random.Generator) -> PlannedModel:
    """Another model of the same ranges: permuted, rescaled, with other signs and zeros."""
    weights = random.permuted(model.weights, axis=1) * random.lognormal(0, 3, model.weights.shape[1])
    weights *= random.choice([-1.0, 0.0, 1.0], weights.shape)
    weights[0, 0] = weights[0, 0] or 1.0
    return dataclasses.replace(model, weights=weights, intercept=random.normal(0, 1, len(weights)))


def assert_decrypted_and_hidden(plan: Plan[Any]) -> None:
    """Assert that replies are decrypted and, in mode private, that noise hides the weights."""
    parameters, largest = plan.parameters, _absolute_sum(plan.packing, plan.model)
    if plan.noise_width is None:
        assert is_exact(plan, 43 * largest + 1)
    else:
        kept = plan.packing.rows * plan.packing.score_count
        assert hiding.fits(parameters, largest, plan.noise_width)
        assert is_exact(plan, 43 * largest + 1 + 2 * zero_noise(parameters.parameter_set) + 2 * plan.noise_width)
        assert hiding.hides(parameters.parameter_set, largest, kept, plan.noise_width, HIDING_BITS)
