"""Linear models keep what they were given, and give exact scores."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve_service.models.linear_model import LinearModel

TWO = Output(Task.REGRESSION, 2)


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6)))
def test_weights_are_private_contiguous_and_read_only(weights: NDArray[np.float64]) -> None:
    view = np.asfortranarray(weights)[:, ::2]
    model = LinearModel(view, np.zeros(2), TWO, input_range=(np.zeros(3), np.ones(3)))
    np.testing.assert_array_equal(model.weights, view)
    assert not np.shares_memory(model.weights, view)
    assert model.input_range is not None
    for array in (model.weights, model.intercept, *model.input_range):
        assert array.flags.c_contiguous
        assert not array.flags.writeable


def test_decision_is_w_x_plus_b() -> None:
    model = LinearModel(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]), TWO)
    assert (model.score_count, model.feature_count) == (2, 2)
    assert model.decision([[1, 1], [0, -1]]).tolist() == [[13.0, 27.0], [8.0, 16.0]]
    assert model.decision(np.empty((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("X", [[1.0, 2.0], [[1.0]], [[[1.0, 2.0]]]])
def test_rows_of_another_length_are_refused(X: Any) -> None:
    with pytest.raises(ValueError, match=r"rows have shape \(rows, 2\)"):
        LinearModel(np.ones((2, 2)), np.zeros(2), TWO).decision(X)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((np.ones(2), np.zeros(2), TWO), r"weights have shape \(2,\)"),
        ((np.ones((3, 2)), np.zeros(2), TWO), r"\(3, 2\) instead of \(2 scores, features\)"),
        ((np.ones((2, 0)), np.zeros(2), TWO), r"weights have shape \(2, 0\)"),
        ((np.ones((2, 2)), np.zeros(1), TWO), r"intercept has shape \(1,\) instead of \(2,\)"),
        ((np.full((2, 2), np.nan), np.zeros(2), TWO), r"NaN or infinity in the weights, first at index \(0, 0\)"),
        ((np.ones((2, 2)), np.array([0, np.inf]), TWO), r"infinity in the intercept"),
        ((np.ones((2, 2)), np.zeros(2), TWO, ("age",)), "1 feature names for 2 features"),
        ((np.ones((2, 2)), np.zeros(2), TWO, (), (np.zeros(3), np.ones(3))), "scaler's range"),
        ((np.ones((2, 2)), np.zeros(2), TWO, (), (np.zeros(2), np.full(2, np.inf))), "scaler's maximum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_model_is_refused(fields: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LinearModel(*fields)
