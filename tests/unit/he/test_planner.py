"""Plans keep their promised errors."""

import numpy as np
import pytest

from sealserve.he.planner import row_plans
from sealserve.he.quantization import InputGrid


@pytest.mark.parametrize(("maximum", "expected"), [(0.0, 0.0), (0.9, 2.7), (1.0, 3.0), (1.1, 3.0), (20.0, 3.0)])
def test_rounding_of_a_narrow_range(maximum: float, expected: float) -> None:
    (plan,) = row_plans(np.array([[-3.0]]), np.zeros(1), InputGrid.of(1, 0.0, maximum, 2.0))[:1]
    assert plan.input_rounding_error_bound == pytest.approx(expected)
