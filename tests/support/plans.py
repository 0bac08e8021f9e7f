"""The planner with a layout filled in: `row_plans(weights, intercept, grid, ...)` and so on."""

from functools import partial

from sealserve_service.planning.column import COLUMN_RULES
from sealserve_service.planning.planner import candidate_plans, cheapest_plan
from sealserve_service.planning.row import ROW_RULES

row_plans = partial(candidate_plans, ROW_RULES)
column_plans = partial(candidate_plans, COLUMN_RULES)
plan_row = partial(cheapest_plan, ROW_RULES)
plan_column = partial(cheapest_plan, COLUMN_RULES)
