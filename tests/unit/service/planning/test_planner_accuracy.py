"""What is served by default has scores many times more exact than with steps of 1/255.

Steps are planned, and costlier sets taken until the verdict is OK. The table of all cases:
`python -m tests.unit.service.planning.test_planner_accuracy`.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS, Packing
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Verdict
from sealserve_service.engines.offering import plan_layouts
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.score_error import CalibrationScores
from sealserve_service.planning.verdict import judge
from tests.support.accuracy_cases import AccuracyCase, accuracy_cases
from tests.support.plans import cheapest_plan

MODES = {"open": None, "private": 40}
SOME = {"breast cancer", "wine, raw", "iris", "digits", "diabetes", "housing", "timestamps", "answers from 1 to 5"}


class Change(NamedTuple):
    """What has become of a layout's plan for a case.

    Attributes:
        layout: its name.
        former: with steps of 1/255; None if there was no plan good enough.
        plan: what is served by default.
    """

    layout: str
    former: Plan[Packing] | None
    plan: Plan[Packing]


def bytes_a_row(plan: Plan[Packing]) -> float:
    """Of a full item."""
    return (plan.request_bytes + plan.reply_bytes) / plan.packing.rows


def changes(case: AccuracyCase, hiding_bits: int | None) -> Iterator[Change]:
    """Plan a case for each layout, as a service does it that has calibration rows."""
    model = case.model
    ranges = input_ranges(model, calibration=case.calibration)
    options: dict[str, Any] = {"calibration": case.calibration, "accept_disagreement": True}
    for planned in plan_layouts(model, ranges, modes=[hiding_bits], **options):
        rules = planned.engine_type.rules
        former: Plan[Packing] | None = None
        with contextlib.suppress(PlanError):
            former = cheapest_plan(rules, model.weights, model.intercept, former_grid(case), hiding_bits=hiding_bits)
        assert isinstance(planned.chosen, Plan)
        yield Change(rules.layout.name, former, planned.chosen)


def former_grid(case: AccuracyCase) -> InputGrid:
    """1/255 of the range that the operator gave, or of the calibration rows' own."""
    low, high = case.input_range or (case.calibration.min(axis=0), case.calibration.max(axis=0))
    return InputGrid.of(case.model.feature_count, low, high)


def error(case: AccuracyCase, plan: Plan[Packing]) -> float:
    """The root mean square error of the worst class on held-out rows, moved into the range."""
    grid = plan.grid
    rows = np.clip(case.held_out, grid.minimum, grid.maximum)
    integers = np.clip(np.rint((rows - grid.minimum) / grid.step), 0, grid.levels).astype(np.int64)
    errors = plan.model.scores(integers) - case.model.decision(rows)
    return float(np.sqrt((errors**2).mean(axis=0)).max())


def gain(case: AccuracyCase, change: Change) -> float:
    """How many times smaller the error is. Labels of held-out rows have to be the model's own."""
    if change.former is None:
        return math.nan
    grid, output = change.plan.grid, case.model.output
    is_inside = ((case.held_out >= grid.least) & (case.held_out <= grid.greatest)).all(axis=1)
    inside = case.held_out[is_inside]
    labels = output.predict(change.plan.model.scores(grid.quantize(inside).integers))
    assert is_inside.mean() >= 0.98
    if output.classes:
        assert np.mean(labels == output.predict(case.model.decision(inside))) >= 0.998
    return error(case, change.former) / error(case, change.plan)


def geometric_mean(gains: list[float]) -> float:
    return math.exp(float(np.nanmean(np.log(gains))))


def all_gains(chosen: Callable[[str], bool], hiding_bits: int | None) -> dict[str, list[float]]:
    """The gains of each layout."""
    found: dict[str, list[float]] = defaultdict(list)
    for case in accuracy_cases(chosen):
        for change in changes(case, hiding_bits):
            found[change.layout].append(gain(case, change))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_errors_are_twenty_times_smaller(mode: str) -> None:
    gains = all_gains(SOME.__contains__, MODES[mode])
    assert gains.keys() == LAYOUTS.keys() - {"ei-slots"}
    for layout in gains:
        assert geometric_mean(gains[layout]) >= 20


@pytest.mark.long
@pytest.mark.parametrize("mode", list(MODES))
def test_errors_of_all_cases_are_twenty_times_smaller(mode: str) -> None:
    for gains in all_gains(lambda name: True, MODES[mode]).values():
        assert geometric_mean(gains) >= 20


DEARER = {"5,000 features", "near ties", "units from 1e-9 to 1e9", "shares of 100 words"}


@pytest.mark.long
@pytest.mark.parametrize("mode", list(MODES))
def test_a_row_costs_what_it_did_unless_labels_ask_for_more(mode: str) -> None:
    """Bytes a row grow for few models, and none of those whose labels were right before.

    Those keep their parameter set, too, so that a row takes as long as before.
    """
    for case in accuracy_cases():
        rows = CalibrationScores.of(case.model, case.calibration)
        for layout, former, plan in changes(case, MODES[mode]):
            if former is not None and judge(former, case.model, rows).grade is Verdict.OK:
                assert plan.parameters.parameter_set == former.parameters.parameter_set, (case.name, layout)
                assert bytes_a_row(plan) <= bytes_a_row(former)
            elif former is not None and case.name not in DEARER:
                assert bytes_a_row(plan) <= 1.01 * bytes_a_row(former)


def main() -> None:
    """Print the gain of every case, and the bytes a row."""
    for mode, hiding_bits in MODES.items():
        gains: dict[str, list[float]] = defaultdict(list)
        for case in accuracy_cases():
            for change in changes(case, hiding_bits):
                gains[change.layout].append(gain(case, change))
                former = math.nan if change.former is None else bytes_a_row(change.former)
                figures = f"{gains[change.layout][-1]:12.1f} {former:12.0f} {bytes_a_row(change.plan):12.0f}"
                print(f"{mode:8} {change.layout:7} {case.name:30} {figures}")
        for layout, found in gains.items():
            print(f"{mode:8} {layout:7} {'geometric mean':30} {geometric_mean(found):12.1f}")


if __name__ == "__main__":
    main()
