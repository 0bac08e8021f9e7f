"""The planner in one step: with a layout filled in, or as a service plans."""

from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts import Packing
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ROOM
from sealserve_service.engines.offering import plan_layouts
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.column import COLUMN_RULES
from sealserve_service.planning.plan import PackingT, Plan, PlanningRules
from sealserve_service.planning.planner import candidate_plans, choose
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.row import ROW_RULES


def cheapest_plan(
    rules: PlanningRules[PackingT],
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    inputs: InputRanges | InputGrid,
    *,
    max_score_error: float | None = None,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> Plan[PackingT]:
    """Return the cheapest plan whose error bound is small enough.

    The arguments and errors are those of `candidate_plans` and `choose`.
    """
    plans = candidate_plans(
        rules,
        weights,
        intercept,
        inputs,
        hiding_bits=hiding_bits,
        max_score_error=max_score_error,
        parameter_sets=parameter_sets,
    )
    return choose(plans, weights, max_score_error=max_score_error, hiding_bits=hiding_bits)


def is_exact(plan: Plan[Packing], noise_times_two: int) -> bool:
    """Whether replies with noise of that size at most decrypt right, packed as the plan says."""
    parameters, bits = plan.parameters, plan.reply_bits
    noise = Fraction(parameters.plain_modulus * noise_times_two, 2 * parameters.parameter_set.modulus)
    return noise + (bits.cost(parameters) if bits else 0) < ROOM


row_plans = partial(candidate_plans, ROW_RULES)
column_plans = partial(candidate_plans, COLUMN_RULES)
plan_row = partial(cheapest_plan, ROW_RULES)
plan_column = partial(cheapest_plan, COLUMN_RULES)


def served_plans(
    model: LinearModel, inputs: InputRanges, *, max_score_error: float | None = None, hiding_bits: int | None = None
) -> dict[str, Any]:
    """Return the plans of a service without calibration rows, by the name of their layout."""
    planned = plan_layouts(model, inputs, modes=(hiding_bits,), max_score_error=max_score_error)
    return {layout.engine_type.rules.layout.name: layout.chosen for layout in planned}
