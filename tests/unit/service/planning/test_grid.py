"""Which range the grid of the features takes, and what is said when there is none."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve_service.models.errors import InputRangeError, InputRangeMissingError
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.grid import input_grid

OUTPUT = Output(Task.REGRESSION, 1)
PLAIN = LinearModel(np.ones((1, 2)), np.zeros(1), OUTPUT)
SCALED = LinearModel(np.ones((1, 2)), np.zeros(1), OUTPUT, input_range=(np.array([-1.0, 0.0]), np.array([1.0, 10.0])))
ROWS = np.array([[0, 5], [20, 5], [10, 5]])


def test_the_operators_range_goes_first() -> None:
    grid = input_grid(SCALED, input_range=(0, 255), calibration=ROWS)
    assert grid.minimum.tolist() == [0, 0]
    assert grid.maximum.tolist() == [255, 255]
    assert grid.step.tolist() == [1, 1]


def test_then_the_rows() -> None:
    grid = input_grid(SCALED, calibration=ROWS)
    assert grid.minimum.tolist() == [0, 5]
    assert grid.maximum.tolist() == [20, 5]
    np.testing.assert_allclose(grid.step, [20 / 255, 1])  # a constant feature has one level, whatever its step


values = st.floats(-1e300, 1e300) | st.floats(-100, 100, width=16) | st.integers(-300, 300).map(float)


@given(rows=hnp.arrays(np.float64, st.tuples(st.integers(2, 4), st.just(2)), elements=values))
def test_their_range_is_rounded_outwards(rows: NDArray[np.float64]) -> None:
    grid = input_grid(PLAIN, calibration=rows)
    low, high = rows.min(axis=0), rows.max(axis=0)
    width = high - low
    assert (grid.minimum <= low).all()
    assert (grid.maximum >= high).all()
    assert ((grid.maximum - grid.minimum)[width == 0] == 0).all()
    assert (low - grid.minimum <= width / 128).all()
    assert (grid.maximum - high <= width / 128).all()


def test_one_row_gives_no_range() -> None:
    for model in (PLAIN, SCALED):
        with pytest.raises(InputRangeError, match=r"one calibration row gives no range: .* --input-range LO,HI"):
            input_grid(model, calibration=ROWS[:1])
    assert input_grid(PLAIN, calibration=ROWS[:1], input_range=(0.0, 30.0)).maximum.tolist() == [30, 30]


def test_of_a_persons_value_the_range_tells_a_few_bits() -> None:
    grid = input_grid(PLAIN, calibration=np.array([[0.123456789, 1000.0], [97.654321, 31337.0]]))
    assert grid.minimum.tolist() == [0.0, 896.0]
    assert grid.maximum.tolist() == [98.0, 31360.0]


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-3, 4), (1, 100), (0, 1), (0, 256)])
def test_integers_stay_the_bounds_of_up_to_256_integers(low: int, high: int) -> None:
    grid = input_grid(PLAIN, calibration=np.array([[low, low], [high, high]]))
    assert (grid.minimum.tolist(), grid.maximum.tolist()) == ([low, low], [high, high])


def test_then_the_models_own_scaler() -> None:
    grid = input_grid(SCALED)
    assert grid.minimum.tolist() == [-1, 0]
    assert grid.maximum.tolist() == [1, 10]


def test_one_step_for_all_features() -> None:
    assert input_grid(SCALED, input_step=0.25).step.tolist() == [0.25, 0.25]


def test_without_a_range_the_error_says_how_to_give_one() -> None:
    with pytest.raises(InputRangeMissingError, match=r"--input-range LO,HI.*--calibration FILE"):
        input_grid(PLAIN, input_step=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"input_range": (1.0, 0.0)},
        {"input_range": (0.0, np.inf)},
        {"input_range": (np.nan, 1.0)},
        {"input_range": (0.0, 1.0), "input_step": 0.0},
        {"input_step": -1.0, "calibration": ROWS},
        {"input_step": np.nan, "calibration": ROWS},
    ],
    ids=repr,
)
def test_a_range_or_step_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputRangeError):
        input_grid(PLAIN, **options)


@pytest.mark.parametrize("input_range", [None, (0.0, 1.0)], ids=["decides", "does not decide"])
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones(2), r"shape \(rows, 2\), not \(2,\)"),
        (np.ones((4, 3)), r"shape \(rows, 2\), not \(4, 3\)"),
        (np.empty((0, 2)), r"not \(0, 2\)"),
        (np.array([["a", "b"]]), "are numbers, not <U1"),
        (np.array([[1.0, None]]), "are numbers, not object"),
        (np.array([[1.0, 2.0], [1.0, np.nan]]), "finite; row 1 is not, at feature 1"),
        (np.array([[np.inf, 2.0]]), "finite; row 0 is not, at feature 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_calibration_rows_that_do_not_fit_are_refused(rows: Any, reason: str, input_range: Any) -> None:
    with pytest.raises(InputRangeError, match=reason):
        input_grid(PLAIN, input_range=input_range, calibration=rows)
