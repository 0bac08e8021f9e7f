"""Functions of each number, against NumPy, SciPy and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from sklearn.preprocessing import PowerTransformer, QuantileTransformer

from sealserve.steps.elementwise import Elementwise, Function, normal_quantile
from sealserve.steps.intervals import Table, TableColumn
from sealserve.steps.program import Program
from sealserve.steps.ranges import Ranges
from sealserve.steps.step import ValueKind
from tests.support.applied_steps import applied

RNG = np.random.default_rng(5)
POINTS = np.concatenate([RNG.normal(size=300) * 3, [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-320]])[:, None]
EXPECTED: dict[Function, Callable[[Any], Any]] = {
    Function.ABS: np.abs,
    Function.SQUARE: np.square,
    Function.SQRT: np.sqrt,
    Function.EXP: np.exp,
    Function.EXPM1: np.expm1,
    Function.LOG: np.log,
    Function.LOG1P: np.log1p,
    Function.COS: np.cos,
    Function.SIN: np.sin,
    Function.TANH: np.tanh,
    Function.RELU: lambda x: np.maximum(x, 0),
}
PARAMETERS = {
    Function.CLIP: (-1.0, 0.5),
    Function.YEO_JOHNSON: (0.3,),
    Function.BOX_COX: (-0.7,),
    Function.NORMAL_QUANTILE: (-5.0, 5.0),
    Function.GREATER: (0.25,),
}


def step_of(function: Function) -> Elementwise:
    return Elementwise([0], function, *(np.array([value]) for value in PARAMETERS.get(function, ())))


@pytest.mark.parametrize("function", EXPECTED)
def test_functions_are_those_of_numpy(function: Function) -> None:
    with np.errstate(all="ignore"):
        expected = EXPECTED[function](POINTS)
    np.testing.assert_array_equal(applied(step_of(function), POINTS).values, expected)


def test_clip_greater_and_sublinear() -> None:
    np.testing.assert_array_equal(applied(step_of(Function.CLIP), POINTS).values, np.clip(POINTS, -1.0, 0.5))
    greater = applied(step_of(Function.GREATER), [[0.25], [0.2500001], [np.nan]]).values[:, 0]
    np.testing.assert_array_equal(greater, [0.0, 1.0, np.nan])
    sublinear = applied(step_of(Function.SUBLINEAR), [[0.0], [1.0], [7.0], [np.nan]]).values[:, 0]
    np.testing.assert_array_equal(sublinear, [0.0, 1.0, 1 + np.log(7.0), np.nan])


@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_power_transforms_are_those_of_the_transformer(method: str) -> None:
    rows = RNG.lognormal(size=(100, 4)) - (1.0 if method == "yeo-johnson" else 0.0)
    transformer = PowerTransformer(method, standardize=False).fit(rows)
    transformer.lambdas_ = np.array([transformer.lambdas_[0], 0.0, 2.0, 1e-17])  # the ends of the cases
    function = Function.YEO_JOHNSON if method == "yeo-johnson" else Function.BOX_COX
    found = applied(Elementwise(range(4), function, transformer.lambdas_), rows)
    np.testing.assert_allclose(found.values, transformer.transform(rows), rtol=1e-12)
    assert np.isnan(applied(step_of(function), [[np.nan]]).values).all()


def test_a_function_without_a_value_gives_nan() -> None:
    for function, x in (
        (Function.BOX_COX, 0.0),
        (Function.BOX_COX, -1.0),
        (Function.SQRT, -1.0),
        (Function.LOG1P, -2.0),
        (Function.NORMAL_QUANTILE, 1.1),
    ):
        assert np.isnan(applied(step_of(function), [[x]]).values).all(), function


def test_normal_quantiles_are_those_of_scipy() -> None:
    points = np.concatenate([np.linspace(0, 1, 20001), np.logspace(-300, -1, 500), 1 - np.logspace(-16, -1, 200)])
    np.testing.assert_allclose(normal_quantile(points), special.ndtri(points), rtol=4e-15, atol=1e-15)


def test_quantiles_of_a_normal_distribution_are_those_of_the_transformer() -> None:
    trained = np.round(RNG.normal(size=(200, 1)), 1)
    transformer = QuantileTransformer(n_quantiles=30, output_distribution="normal", subsample=None).fit(trained)
    low = stats.norm.ppf(1e-7 - np.spacing(1))
    table = Table([0], [TableColumn(transformer.quantiles_[:, 0], transformer.references_, tolerance=1e-7)])
    normal = Elementwise([1], Function.NORMAL_QUANTILE, np.array([low]), np.array([-low]))
    rows = np.concatenate([trained, trained + 1e-8, [[-99.0], [99.0]], transformer.quantiles_])
    found = Program([ValueKind.NUMBER], [table, normal], [2]).features(rows)
    np.testing.assert_allclose(found.values, transformer.transform(rows), rtol=1e-9)


@pytest.mark.parametrize("function", Function)
def test_ranges_hold_and_say_what_may_be_missing(function: Function) -> None:
    for low, high in ((-2.0, 3.0), (0.1, 0.9), (-0.5, 0.5), (-3.0, -2.0)):
        found = step_of(function).ranges(Ranges.of(np.array([low]), np.array([high])))
        values = applied(step_of(function), np.linspace(low, high, 1001)[:, None]).values
        known = values[~np.isnan(values)]
        assert (known >= found.low - 1e-12).all(), (low, high)
        assert (known <= found.high + 1e-12).all(), (low, high)
        assert found.may_be_missing[0] or len(known) == len(values), (low, high)


@pytest.mark.parametrize(
    "arguments",
    [
        (Function.ABS, np.zeros(1)),
        (Function.CLIP, np.zeros(1)),
        (Function.CLIP, np.ones(1), np.zeros(1)),
        (Function.GREATER,),
        (Function.YEO_JOHNSON, np.array([np.nan])),
    ],
)
def test_parameters_that_a_function_does_not_have_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"parameters|above"):
        Elementwise([0], *arguments)
