"""Steps for intervals, against scikit-learn's discretizer, quantiles and splines."""

from math import factorial
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import KBinsDiscretizer, QuantileTransformer, SplineTransformer

from sealserve.steps.intervals import (
    Bins,
    BinsColumn,
    Piecewise,
    PiecewiseColumn,
    Table,
    TableColumn,
)
from sealserve.steps.ranges import GroupKind, Ranges
from tests.support.applied_steps import applied

RNG = np.random.default_rng(3)
TRAINED = np.round(RNG.normal(size=(200, 3)), 1)  # rounded, so that values meet edges and quantiles
ROWS = np.concatenate([TRAINED, [[-1e300] * 3, [1e300] * 3, [0.0] * 3, [-0.0] * 3]])
BEYOND = np.full((1, 3), np.nan)


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
@pytest.mark.parametrize("encode", ["ordinal", "onehot-dense"])
@pytest.mark.filterwarnings("ignore:Bins whose width")
def test_bins_are_those_of_the_discretizer(strategy: str, encode: str) -> None:
    arguments = {"quantile_method": "averaged_inverted_cdf"} if strategy == "quantile" else {}
    discretizer = KBinsDiscretizer(5, encode=encode, strategy=strategy, subsample=None, **arguments).fit(TRAINED)
    edges = [edges[1:-1] for edges in discretizer.bin_edges_]
    rows = np.concatenate([ROWS, np.stack([column[:2] for column in edges], axis=1)])
    step = Bins(range(3), list(map(BinsColumn, edges)), one_hot=encode != "ordinal")
    np.testing.assert_array_equal(applied(step, rows).values, discretizer.transform(rows))


def test_a_missing_number_is_refused_or_has_a_bin() -> None:
    assert applied(Bins([0], [BinsColumn(np.array([1.0]))]), [[np.nan], [1.0]]).is_refused.tolist() == [True, False]
    step = Bins([0], [BinsColumn(np.array([1.0]), missing_bin=2)], one_hot=True)
    assert applied(step, [[np.nan], [1.0], [0.5]]).values.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    step = Bins([0], [BinsColumn(np.array([1.0]), missing_bin=0)])
    assert applied(step, [[np.nan], [np.inf], [-np.inf]]).values[:, 0].tolist() == [0, 1, 0]


def test_a_number_at_an_edge_belongs_to_either_side() -> None:
    rows = [[1.0], [np.nextafter(1.0, 0)], [np.nextafter(1.0, 2)]]
    assert applied(Bins([0], [BinsColumn(np.array([1.0]))]), rows).values[:, 0].tolist() == [1, 0, 1]
    step = Bins([0], [BinsColumn(np.array([1.0]), closed_right=True)])
    assert applied(step, rows).values[:, 0].tolist() == [0, 0, 1]


def test_exactly_one_bin_of_a_column_is_1() -> None:
    step = Bins([0, 0], [BinsColumn(np.zeros(0)), BinsColumn(np.array([1.0, 1.0]))], one_hot=True)
    groups = step.ranges(Ranges.of(np.zeros(2), np.ones(2))).groups
    assert [(group.kind, group.members.tolist()) for group in groups] == [
        (GroupKind.EXACTLY_ONE, [0]),
        (GroupKind.EXACTLY_ONE, [1, 2, 3]),
    ]


def test_quantiles_are_those_of_the_transformer() -> None:
    """Of a uniform distribution. The normal one adds an Elementwise step."""
    transformer = QuantileTransformer(n_quantiles=40, subsample=None).fit(TRAINED)
    columns = [TableColumn(quantiles, transformer.references_) for quantiles in transformer.quantiles_.T]
    rows = np.concatenate([ROWS, transformer.quantiles_, transformer.quantiles_ + 1e-9])
    np.testing.assert_allclose(applied(Table(range(3), columns), rows).values, transformer.transform(rows), rtol=1e-14)


def test_a_table_of_one_point_or_with_a_tolerance_is_flat_there() -> None:
    step = Table(
        [0, 0], [TableColumn(np.array([1.0, 1.0]), np.array([2.0, 3.0])), TableColumn(np.zeros(1), np.full(1, 5.0))]
    )
    assert applied(step, [[0.0], [1.0], [2.0]]).values.tolist() == [[2.0, 5.0], [2.0, 5.0], [3.0, 5.0]]
    step = Table([0], [TableColumn(np.array([0.0, 1.0]), np.array([0.0, 1.0]), tolerance=0.25)])
    assert applied(step, [[0.2], [0.25], [0.8], [np.nan]]).values[:3, 0].tolist() == [0.0, 0.25, 1.0]


def spline(transformer: SplineTransformer) -> Piecewise:
    """The step of a fitted transformer: Taylor's polynomials at the knots."""
    columns = []
    for basis in transformer.bsplines_:
        knots = basis.t[basis.k : -basis.k]
        low, high = knots[0], knots[-1]
        powers = [[basis(x, nu=power) / factorial(power) for power in range(basis.k + 1)] for x in knots[:-1]]
        coefficients, edges, origins = np.array(powers), knots[1:-1], knots[:-1]
        if transformer.extrapolation in ("constant", "linear"):
            ends = np.zeros((2, *coefficients.shape[1:]))
            for end, x in enumerate((low, high)):
                ends[end, 0] = basis(x)
                ends[end, 1] = basis(x, nu=1) * (transformer.extrapolation == "linear")
            coefficients = np.concatenate([ends[:1], coefficients, ends[1:]])
            edges, origins = knots, np.array([low, *origins, high])
        period = (low, high) if transformer.extrapolation == "periodic" else None
        domain = (low, high) if transformer.extrapolation == "error" else None
        columns.append(PiecewiseColumn(edges, origins, coefficients, period, domain))
    return Piecewise(range(len(columns)), columns)


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic", "error"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_splines_are_those_of_the_transformer(extrapolation: str, degree: int) -> None:
    # With several columns and degree 1, scikit-learn's linear extrapolation changes values inside.
    trained = TRAINED[:, :1] if degree == 1 else TRAINED
    transformer = SplineTransformer(n_knots=6, degree=degree, extrapolation=extrapolation).fit(trained)
    rows = trained if extrapolation == "error" else np.concatenate([trained, trained * 1.7])
    found = applied(spline(transformer), rows)
    np.testing.assert_allclose(found.values, transformer.transform(rows), rtol=1e-9, atol=1e-12)
    beyond = applied(spline(transformer), [[9.0, 0.0, 0.0][: trained.shape[1]]])
    assert beyond.is_refused.tolist() == [extrapolation == "error"]


def test_the_range_of_polynomials_holds_and_is_close() -> None:
    transformer = SplineTransformer(n_knots=6, degree=3).fit(TRAINED)
    step = spline(transformer)
    found = step.ranges(Ranges.of(np.full(3, -np.inf), np.full(3, np.inf)))
    dense = transformer.transform(np.linspace(TRAINED.min(axis=0), TRAINED.max(axis=0), 2000))
    assert (dense >= found.low - 1e-12).all()
    assert (dense <= found.high + 1e-12).all()
    assert (found.high <= dense.max(axis=0) + 0.3).all()
    assert (found.low >= -0.3).all()


def test_a_missing_number_makes_all_outputs_of_its_column_nan() -> None:
    column = PiecewiseColumn(np.zeros(0), np.zeros(1), np.array([[[1.0, 2.0]]]))
    found = applied(Piecewise([0], [column]), [[np.nan], [3.0]])
    assert np.isnan(found.values[0]).all()
    assert found.values[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinsColumn(np.array([2.0, 1.0])),
        lambda: BinsColumn(np.array([np.inf])),
        lambda: BinsColumn(np.array([1.0]), missing_bin=3),
        lambda: BinsColumn(np.array([1.0]), missing_bin=-1),
        lambda: TableColumn(np.array([1.0, 0.0]), np.zeros(2)),
        lambda: TableColumn(np.zeros(2), np.zeros(3)),
        lambda: TableColumn(np.zeros(0), np.zeros(0)),
        lambda: TableColumn(np.zeros(1), np.zeros(1), tolerance=-1.0),
        lambda: TableColumn(np.zeros(1), np.zeros(1), tolerance=np.nan),
        lambda: PiecewiseColumn(np.zeros(1), np.zeros(1), np.zeros((2, 1, 1))),
        lambda: PiecewiseColumn(np.zeros(0), np.zeros(1), np.zeros((1, 17, 1))),
        lambda: PiecewiseColumn(np.zeros(0), np.zeros(1), np.zeros((1, 1, 0))),
        lambda: PiecewiseColumn(np.zeros(0), np.zeros(1), np.zeros((1, 1, 1)), period=(1.0, 1.0)),
        lambda: PiecewiseColumn(np.zeros(0), np.zeros(1), np.zeros((1, 1, 1)), domain=(0.0, np.inf)),
        lambda: Bins([0, 1], [BinsColumn(np.zeros(1))]),
    ],
)
def test_intervals_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()
