"""The planner in one step, and with a layout filled in: `plan_row(weights, intercept, grid)`."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
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


row_plans = partial(candidate_plans, ROW_RULES)
column_plans = partial(candidate_plans, COLUMN_RULES)
plan_row = partial(cheapest_plan, ROW_RULES)
plan_column = partial(cheapest_plan, COLUMN_RULES)
