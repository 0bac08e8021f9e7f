"""Planned steps make scores many times more exact than steps of 1/255 of each range.

All 30 cases: `python -m tests.unit.service.planning.test_planner_accuracy`.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sealserve.errors import PlanError
from sealserve.he.layouts import Packing
from sealserve.he.quantization import InputGrid
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.ranges import InputRanges
from tests.support.accuracy_cases import AccuracyCase, accuracy_cases
from tests.support.plans import plan_row

MODES = {"open": None, "private": 40}
SOME = {"breast cancer", "wine, raw", "iris", "digits", "diabetes", "housing", "timestamps", "answers from 1 to 5"}


def ranges_of(case: AccuracyCase) -> InputRanges:
    """The ranges from the calibration rows."""
    return input_ranges(case.model, calibration=case.calibration)


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


def gains(case: AccuracyCase, hiding_bits: int | None) -> tuple[float, bool]:
    """How many times smaller the error is, and whether the labels are the model's own."""
    weights, intercept = case.model.weights, case.model.intercept
    plan = plan_row(weights, intercept, ranges_of(case), hiding_bits=hiding_bits)
    former = plan_row(weights, intercept, former_grid(case), hiding_bits=hiding_bits)
    grid = plan.grid
    is_inside = ((case.held_out >= grid.least) & (case.held_out <= grid.greatest)).all(axis=1)
    inside = case.held_out[is_inside]
    labels = case.model.output.predict(plan.model.scores(grid.quantize(inside).integers))
    expected = case.model.output.predict(case.model.decision(inside))
    agreement = float(np.mean(labels == expected)) if case.model.output.classes else 1.0
    return error(case, former) / error(case, plan), agreement >= 0.998 and is_inside.mean() >= 0.98


def geometric_mean(chosen: Callable[[str], bool], hiding_bits: int | None) -> float:
    found = [gains(case, hiding_bits) for case in accuracy_cases(chosen)]
    assert all(is_right for _, is_right in found)
    return math.exp(sum(math.log(gain) for gain, _ in found) / len(found))


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_errors_are_twenty_times_smaller(mode: str) -> None:
    assert geometric_mean(SOME.__contains__, MODES[mode]) >= 20


def main() -> None:
    """Print the gain of every case."""
    for mode, hiding_bits in MODES.items():
        logarithms = []
        for case in accuracy_cases():
            try:
                gain, _ = gains(case, hiding_bits)
            except PlanError as reason:
                print(f"{mode:8} {case.name:30} {reason}")
                continue
            logarithms.append(math.log(gain))
            print(f"{mode:8} {case.name:30} {gain:10.1f}")
        print(f"{mode:8} {'geometric mean':30} {math.exp(sum(logarithms) / len(logarithms)):10.1f}")


if __name__ == "__main__":
    main()
