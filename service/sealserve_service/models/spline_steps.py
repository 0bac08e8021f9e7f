"""Steps of splines: SplineTransformer as polynomials on intervals."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, PPoly
from sklearn.preprocessing import SplineTransformer

from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.intervals import Piecewise, PiecewiseColumn
from sealserve.steps.limits import MAX_DEGREE
from sealserve_service.models.arrays import matrix, vector
from sealserve_service.models.pipeline_steps import Node, OpenStep, rows_told_by_quantiles


def splines(transformer: SplineTransformer, name: str) -> Iterator[Node]:
    """Yield the step of a SplineTransformer."""
    rule = transformer.extrapolation
    if getattr(transformer, "handle_missing", "error") != "error":
        raise ValueError("it lets missing values through as zeros: put a SimpleImputer before it")
    for number, spline in enumerate(transformer.bsplines_):
        _check(spline, transformer.degree)
        low, high = _domain(spline, transformer.degree)
        if low == high:
            raise ValueError(f"column {number} is constant, and its spline has no knots: leave it out")
    columns = [_column(spline, transformer.degree, transformer.include_bias, rule) for spline in transformer.bsplines_]
    low, high = np.array([_domain(spline, transformer.degree) for spline in transformer.bsplines_]).T

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        if rule == "constant":
            inputs = add(Elementwise(inputs, Function.CLIP, low, high))
        outputs: NDArray[np.intp] = add(Piecewise(inputs, columns))
        return outputs

    width = sum(column.width for column in columns)
    tells = f"the knots of {len(columns)} columns, extremes or quantiles of them"
    is_of_quantiles = isinstance(transformer.knots, str) and transformer.knots == "quantile"
    rows = rows_told_by_quantiles(transformer.n_knots if is_of_quantiles else 0, "n_knots")
    yield OpenStep(name, width, emit, tells, training_values=rows)


def _check(spline: BSpline, degree: int) -> None:
    """Check that the parts of a spline fit together: SciPy's compiled code relies on it.

    What SciPy's compiled code reads are `_t` and `_c`, and `t` and `c` are what `_asarray` makes of
    them: another function than SciPy's own could show other arrays here.

    Raises:
        ValueError: they do not.
    """
    as_array = vars(spline).get("_asarray")  # not in each version of SciPy
    if as_array is not None and not (isinstance(as_array, FunctionType) and as_array.__name__ == "asarray"):
        raise ValueError("the functions of a spline do not come from SciPy")
    knots, coefficients = vector(spline.t), matrix(spline.c)
    if not 0 <= degree <= MAX_DEGREE or spline.k != degree or len(knots) != len(coefficients) + degree + 1:
        raise ValueError("the knots and coefficients of a spline do not fit its degree")
    if spline.axis != 0 or not (np.isfinite(knots).all() and (np.diff(knots) >= 0).all()):
        raise ValueError("the knots of a spline do not increase")


def _domain(spline: BSpline, degree: int) -> tuple[float, float]:
    return float(spline.t[degree]), float(spline.t[-degree - 1])


def _column(spline: BSpline, degree: int, include_bias: bool, rule: str) -> PiecewiseColumn:
    low, high = _domain(spline, degree)
    knots = np.asarray(spline.t, np.float64)
    pieces = [(knots[i], knots[i + 1]) for i in range(degree, len(knots) - degree - 1) if knots[i + 1] > knots[i]]
    starts = np.array([start for start, _ in pieces])
    places = np.searchsorted(knots, starts, side="right") - 1
    # Those of SciPy are (powers, pieces), of x minus the left end, the highest power first.
    of_outputs = [PPoly.from_spline((knots, output, degree)).c[::-1, places].T for output in spline.c.T]
    coefficients = np.stack(of_outputs, axis=2)
    edges, origins = starts[1:], starts
    if rule == "linear":
        ends = []
        for end, piece in ((low, 0), (high, -1)):
            distance = end - origins[piece]
            powers = distance ** np.arange(degree + 1)
            value = powers @ coefficients[piece]
            slope = (np.arange(1, degree + 1) * powers[:-1]) @ coefficients[piece][1:]
            ends.append(np.vstack([value, slope, np.zeros((degree - 1, len(value)))])[None])
        coefficients = np.concatenate([ends[0], coefficients, ends[1]])
        edges = np.concatenate([[low], edges, [high]])
        origins = np.concatenate([[low], origins, [high]])
    if not include_bias:
        coefficients = coefficients[:, :, :-1]
    return PiecewiseColumn(
        edges,
        origins,
        np.ascontiguousarray(coefficients),
        period=(low, high) if rule == "periodic" else None,
        domain=(low, high) if rule == "error" else None,
    )
