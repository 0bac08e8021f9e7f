"""Quantization of features and weights: close, in range, and exact where that is promised."""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from sealserve.errors import FeatureCountError, InputError, NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import DEFAULT_LEVELS, MAX_LEVELS, InputGrid, QuantizedModel
from sealserve.protocol.refusal import refusal
from tests.support.affine_models import features_of
from tests.support.profiled_calls import calls_of

RANDOM = np.random.default_rng(8)
QUICK = settings(deadline=None, max_examples=100)
GRID = InputGrid.of(3, [-1.0, 0.0, 5.0], [1.0, 10.0, 5.0], [0.25, 2.5, 1.0])  # 8, 4 and no levels

magnitudes = st.floats(-1e12, 1e12)


@st.composite
def grids(draw: st.DrawFn) -> InputGrid:
    """Grids of 1 to 5 features, some of no width, with steps that need not divide their range."""
    count = draw(st.integers(1, 5))
    low = draw(hnp.arrays(np.float64, count, elements=magnitudes))
    width = draw(hnp.arrays(np.float64, count, elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e12))))
    levels = draw(hnp.arrays(np.float64, count, elements=st.floats(1.0, 1e5)))
    high = low + width
    return InputGrid.of(count, low, high, np.where(high > low, (high - low) / levels, 1.0))


def rows_within(grid: InputGrid, seed: int) -> NDArray[np.float64]:
    """Rows of the range, its ends among them."""
    shares = np.random.default_rng(seed).random((6, grid.feature_count))
    shares[0], shares[1] = 0.0, 1.0
    rows = grid.minimum + shares * (grid.maximum - grid.minimum)
    clipped: NDArray[np.float64] = np.clip(rows, grid.minimum, grid.maximum)  # what rounding may have moved
    return clipped


# Grids


@QUICK
@given(grid=grids(), seed=st.integers(0, 1000))
def test_rounding_moves_a_feature_by_half_a_step_at_most(grid: InputGrid, seed: int) -> None:
    rows = rows_within(grid, seed)
    quantized = grid.quantize(rows).integers
    assert quantized.dtype == np.int64
    assert (quantized >= 0).all()
    assert (quantized <= grid.levels).all()
    float_error = 4 * np.finfo(np.float64).eps * (np.abs(grid.minimum) + np.abs(grid.maximum))
    assert (np.abs(grid.minimum + quantized * grid.step - rows) <= grid.step / 2 * (1 + 1e-9) + float_error).all()


@QUICK
@given(grid=grids())
def test_the_ends_of_the_range_are_the_ends_of_the_grid(grid: InputGrid) -> None:
    ends = grid.quantize(np.array([grid.minimum, grid.maximum])).integers
    assert ends[0].tolist() == [0] * grid.feature_count
    assert ends[1].tolist() == grid.levels.tolist()
    assert ((grid.levels == 0) == (grid.maximum - grid.minimum <= grid.step / 2)).all()


def test_points_of_the_grid_are_exact() -> None:
    points = np.array([[-1.0, 0.0, 5.0], [-0.75, 2.5, 5.0], [1.0, 10.0, 5.0]])
    assert GRID.quantize(points).integers.tolist() == [[0, 0, 0], [1, 1, 0], [8, 4, 0]]
    assert GRID.levels.tolist() == [8, 4, 0]


def test_the_default_step_makes_255_levels_and_a_constant_feature_none() -> None:
    grid = InputGrid.of(3, [0.0, -1.0, 7.0], [255.0, 1.0, 7.0])
    assert grid.levels.tolist() == [DEFAULT_LEVELS, DEFAULT_LEVELS, 0]
    assert grid.step.tolist() == [1.0, 2.0 / 255, 1.0]
    assert grid.quantize(np.array([[3.0, 1.0, 7.0]])).integers.tolist() == [[3, 255, 0]]


@pytest.mark.parametrize("repeats", [None, 4], ids=["scalars", "one a feature"])
def test_one_value_or_one_a_feature(repeats: int | None) -> None:
    minimum, maximum, step = (value if repeats is None else [value] * repeats for value in (-2.0, 2.0, 0.5))
    grid = InputGrid.of(4, minimum, maximum, step)
    assert (grid.feature_count, grid.minimum.shape, grid.maximum.shape, grid.step.shape) == (4, (4,), (4,), (4,))
    assert grid.levels.tolist() == [8, 8, 8, 8]


def test_the_finest_step() -> None:
    finest = InputGrid.of(1, 0.0, 1.0, 1.0 / MAX_LEVELS)
    assert finest.levels.tolist() == [MAX_LEVELS]
    assert finest.quantize(np.array([[1.0]])).integers.tolist() == [[MAX_LEVELS]]
    with pytest.raises(InputError, match="finer than a 2\\^32nd"):
        InputGrid.of(1, 0.0, 1.0, 0.999 / MAX_LEVELS)


LEAST = np.finfo(np.float64).smallest_subnormal
MOST = np.finfo(np.float64).max


@pytest.mark.parametrize(
    ("minimum", "maximum", "step", "reason"),
    [
        (0.0, np.nan, 1.0, "must be finite"),
        (-np.inf, 0.0, 1.0, "must be finite"),
        (np.inf, np.inf, 1.0, "must be finite"),
        (-MOST, MOST, 1.0, "must be finite"),  # its width is not
        (-MOST, MOST, None, "must be finite"),
        (1.0, 0.0, 1.0, "a maximum is below its minimum"),
        ([0.0, 0.0], [1.0, -LEAST], 1.0, "a maximum is below its minimum"),
        (0.0, 1.0, 0.0, "above 0 and finite"),
        (0.0, 1.0, -1.0, "above 0 and finite"),
        (0.0, 1.0, np.nan, "above 0 and finite"),
        (0.0, 1.0, np.inf, "above 0 and finite"),
        (0.0, LEAST, None, "above 0 and finite"),  # a 255th of it is zero
        (0.0, 1.0, LEAST, "finer than"),
        (0.0, MOST, LEAST, "finer than"),
        ([0.0] * 3, 1.0, None, "one for each of 2 features"),
        (0.0, [1.0] * 3, None, "one for each of 2 features"),
        (0.0, 1.0, [1.0] * 3, "one for each of 2 features"),
        ([], 1.0, 1.0, "one for each of 2 features"),
        ([[0.0], [0.0]], 1.0, 1.0, "one for each of 2 features"),
        ("a", 1.0, 1.0, "one for each of 2 features"),
    ],
    ids=repr,
)
def test_a_grid_that_is_none_is_refused(
    minimum: ArrayLike, maximum: ArrayLike, step: ArrayLike | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        InputGrid.of(2, minimum, maximum, step)


def test_a_grid_is_frozen_and_keeps_no_array_of_the_callers() -> None:
    minimum, maximum, step = np.zeros(3), np.ones(3), np.full(3, 0.5)
    grid = InputGrid.of(3, minimum, maximum, step)
    minimum[:], maximum[:], step[:] = 9.0, 9.0, 9.0
    assert grid.levels.tolist() == [2, 2, 2]
    for values in (grid.minimum, grid.maximum, grid.step):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1.0
    assert all(values.flags.c_contiguous for values in (grid.minimum, grid.maximum, grid.step))


# Rows


@QUICK
@given(grid=grids(), rows=st.data(), clip=st.booleans())
def test_a_refused_row_becomes_a_dummy_and_no_other_row_changes(
    grid: InputGrid, rows: st.DataObject, clip: bool
) -> None:
    near = st.one_of(
        st.floats(),
        st.sampled_from([*grid.minimum, *grid.maximum]),
        st.sampled_from([*np.nextafter(grid.minimum, -np.inf), *np.nextafter(grid.maximum, np.inf)]),
        st.sampled_from([*grid.least, *grid.greatest]),
        st.sampled_from([*np.nextafter(grid.least, -np.inf), *np.nextafter(grid.greatest, np.inf)]),
    )
    drawn = rows.draw(hnp.arrays(np.float64, (4, grid.feature_count), elements=near))
    quantized = grid.quantize(drawn, clip=clip)
    assert quantized.integers.min(initial=0) >= 0
    assert (quantized.integers <= grid.levels).all()
    for row, integers, is_refused in zip(drawn, *quantized, strict=True):
        is_finite = all(map(math.isfinite, row))
        inside = all(low <= value <= high for low, value, high in zip(grid.least, row, grid.greatest, strict=True))
        assert is_refused == (not is_finite or not (inside or clip))
        if is_refused:
            assert not integers.any()
            error = refusal(grid, row[None], clip=clip)
            assert type(error) is (OutOfRangeError if is_finite else NotFiniteError)
        else:
            assert integers.tolist() == grid.quantize(row[None], clip=clip).integers[0].tolist()


SIGNALLING = np.array([0x7FF0000000000001], np.uint64).view(np.float64)[0]


@pytest.mark.parametrize("value", [np.nan, SIGNALLING, np.inf, -np.inf, 1e308, 5e-324])
@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("handling", ["warn", "raise"])
def test_no_value_makes_a_warning_or_an_error(value: float, clip: bool, handling: Any) -> None:
    rows = np.tile(GRID.minimum, (2000, 1))
    rows[1700, 1] = value
    with np.errstate(all=handling):
        is_refused = GRID.quantize(rows, clip=clip).is_refused
    assert np.flatnonzero(is_refused).tolist() == ([] if (clip and np.isfinite(value)) or value == 5e-324 else [1700])


@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
@pytest.mark.parametrize("keeps", [False, True], ids=["free", "keeping"])
def test_no_value_changes_the_path(keeps: bool, clip: bool) -> None:
    grid = InputGrid.of(3, GRID.minimum, GRID.maximum, GRID.step, keeps)
    good, bad, all_bad = (np.tile(grid.minimum, (300, 1)) for _ in range(3))
    bad[7, 0], bad[250, 2], bad[251, 0], all_bad[:] = np.nan, 1e6, 0.1, np.inf
    grid.quantize(good, clip=clip)  # what is computed once for a grid
    paths = [calls_of(lambda rows=rows: grid.quantize(rows, clip=clip)) for rows in (good, bad, all_bad)]  # type: ignore[misc]
    assert len(paths[0]) > 5
    assert paths[0] == paths[1] == paths[2]


@QUICK
@given(grid=grids(), rows=st.data())
def test_clipping_moves_what_is_outside_to_the_nearest_end(grid: InputGrid, rows: st.DataObject) -> None:
    shape = (3, grid.feature_count)
    drawn = rows.draw(hnp.arrays(np.float64, shape, elements=st.floats(allow_nan=False, allow_infinity=False)))
    quantized = grid.quantize(drawn, clip=True).integers
    assert (quantized[drawn <= grid.minimum] == 0).all()
    assert (quantized == grid.levels)[drawn >= grid.maximum].all()
    inside = np.clip(drawn, grid.minimum, grid.maximum)
    assert np.array_equal(quantized, grid.quantize(inside).integers)


@pytest.mark.parametrize(
    ("value", "integer"),
    [(-1.125, 0), (-1.1249, 0), (1.1249, 8), (1.125, 8), (np.float64(np.float32(1.0000001)), 8), (0.126, 5)],
)
def test_what_rounds_to_a_level_is_inside(value: float, integer: int) -> None:
    (row,), (is_refused,) = GRID.quantize(np.array([[value, 0.0, 5.0]]))
    assert row.tolist() == [integer, 0, 0]
    assert not is_refused


@QUICK
@given(grid=grids(), seed=st.integers(0, 1000))
@example(grid=InputGrid.of(1, 0.0, 0.9, 0.2), seed=0)  # 4 levels; 0.9 is half a step above the last
@example(grid=InputGrid.of(1, -0.9, 0.0, 1e-9), seed=0)  # a float32 cannot tell neighbours on the grid apart
def test_a_float32_copy_of_a_row_within_the_range_is_never_refused(grid: InputGrid, seed: int) -> None:
    rows = rows_within(grid, seed)
    ends = np.stack([grid.minimum, grid.maximum])
    for inside in (rows, ends):
        quantized, is_refused = grid.quantize(inside.astype(np.float32).astype(np.float64))
        assert not is_refused.any()
        assert (quantized >= 0).all()
        assert (quantized <= grid.levels).all()


KEEPING = InputGrid.of(3, [0.0, -1.0, 5.0], [1.0, 1.0, 6.0], [1 / 255, 0.5, 1.0], keeps=[True, True, False])


def test_values_on_a_declared_grid_are_exact_as_float32_too() -> None:
    steps = np.arange(256)
    rows = np.stack([steps / 255, np.resize([-1, -0.5, 0, 0.5, 1], 256), np.full(256, 5.3)], axis=1)
    for exact in (rows, rows.astype(np.float32).astype(np.float64)):
        quantized, is_refused = KEEPING.quantize(exact)
        assert not is_refused.any()
        assert (quantized[:, 0] == steps).all()
        assert (quantized[:, 1] == np.resize(np.arange(5), 256)).all()


@pytest.mark.parametrize(("feature", "value"), [(0, 0.002), (0, 1.0002), (1, 0.51), (1, -1.1)])
@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
def test_a_value_off_a_declared_grid_is_refused(feature: int, value: float, clip: bool) -> None:
    rows = np.tile([0.0, 0.0, 5.3], (3, 1))
    rows[2, feature] = value
    if clip and not KEEPING.minimum[feature] <= value <= KEEPING.maximum[feature]:
        integers, is_refused = KEEPING.quantize(rows, clip=True)
        assert not is_refused.any()  # moved to an end, which is on the grid
        assert (integers <= KEEPING.levels).all()
        return
    integers, is_refused = KEEPING.quantize(rows, clip=clip)
    assert is_refused.tolist() == [False, False, True]
    assert integers[2].tolist() == [0, 0, 0], "a dummy"
    error = refusal(KEEPING, rows, clip=clip)
    assert type(error) is OffGridError
    assert re.match(rf"row 2, feature {feature} is not on the model's grid, .* round the feature$", str(error))
    assert f"{value:g}" not in str(error)
    assert GRID.quantize(np.array([[0.1, 0.0, 5.0]])).is_refused.tolist() == [False], "of a grid that is not declared"


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3), ()], ids=repr)
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FeatureCountError, match="rows of 3 features are needed"):
        GRID.quantize(np.zeros(shape))


def test_no_rows_are_no_integers() -> None:
    assert GRID.quantize(np.empty((0, 3))).integers.shape == (0, 3)


# Models


@QUICK
@given(grid=grids(), seed=st.integers(0, 1000), bits=st.integers(1, 30))
def test_integer_weights_are_the_nearest(grid: InputGrid, seed: int, bits: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(2, grid.feature_count)) / grid.step
    model = QuantizedModel.of(weights, np.zeros(2), grid, 2.0**bits)
    for got, weight, step, levels in zip(model.weights.T, weights.T, grid.step, grid.levels, strict=True):
        if not levels:
            assert not got.any(), "its integer is always 0"
            continue
        assert (np.abs(got / 2.0**bits - weight * step) <= 0.5 / 2.0**bits * (1 + 1e-9)).all()


def test_an_intercept_of_any_size_is_exact() -> None:
    grid = InputGrid.of(1, 0.0, 1.0)
    intercepts = [2.0**70 + 2.0**20, -(2.0**900), 2.0**-40, -1.5, 0.5, 2.5, 0.0]
    scale = 2.0**40
    model = QuantizedModel.of(np.zeros((7, 1)), np.array(intercepts), grid, scale)
    assert model.intercept == tuple(round(Fraction(value) * 2**40) for value in intercepts)
    assert model.intercept[:3] == (2**110 + 2**60, -(2**940), 1)
    assert {type(value) for value in model.intercept} == {int}


def test_the_offset_of_the_grid_is_in_the_intercept() -> None:
    grid = InputGrid.of(2, [-1.0, 4.0], [1.0, 8.0], 0.5)
    model = QuantizedModel.of(np.array([[3.0, -2.0]]), np.array([0.25]), grid, 64.0)
    assert model.weights.tolist() == [[96, -64]]
    assert model.intercept == (64 * (-3 - 8) + 16,)
    assert model.scores(grid.quantize(np.array([[0.5, 6.0]])).integers).tolist() == [[3 * 0.5 - 2 * 6 + 0.25]]


@QUICK
@given(seed=st.integers(0, 10_000), huge=st.booleans())
def test_scores_are_the_integer_arithmetic(seed: int, huge: bool) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(-(2**20), 2**20, size=(3, 4))
    intercept = tuple(int(b) * (2**80 if huge else 1) for b in random.integers(-(2**40), 2**40, size=3))
    model = QuantizedModel(weights, intercept, 3.0)
    rows = random.integers(0, 2**20, size=(5, 4))
    exact = rows.astype(object) @ weights.T.astype(object) + np.array(intercept, object)
    assert model.scores(rows).tolist() == [[integer / 3 for integer in row] for row in exact]


def test_what_cancels_leaves_an_exact_difference() -> None:
    model = QuantizedModel(np.array([[2**30, 1 - 2**29]]), (-(2**60) - 1,), 3.0)
    assert model.scores(np.array([[2**30, 0], [2**30, 1], [0, 0]])).tolist() == [
        [-1 / 3],
        [-(2**29) / 3],
        [-(2**60 + 1) / 3],
    ]


@QUICK
@given(seed=st.integers(0, 10_000))
def test_extremes_are_reached_and_never_passed(seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = InputGrid.of(4, 0.0, [1.0, 2.0, 0.0, 5.0], 1.0)
    model = QuantizedModel(random.integers(-9, 10, size=(3, 4)), tuple(map(int, random.integers(-9, 10, size=3))), 1.0)
    every_row = np.stack(np.meshgrid(*(np.arange(levels + 1) for levels in grid.levels)), axis=-1).reshape(-1, 4)
    scores = model.scores(every_row)
    assert model.extremes(grid) == list(zip(scores.min(axis=0), scores.max(axis=0), strict=True))
    assert model.l1_norms.tolist() == [sum(abs(int(w)) for w in row) for row in model.weights]


def test_a_quantized_model_is_frozen() -> None:
    weights = np.ones((1, 1))
    model = QuantizedModel.of(weights, np.zeros(1), InputGrid.of(1, 0.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="read-only"):
        model.weights[0, 0] = 2


@given(st.integers(0, 99), st.floats(1e-3, 10.0))
def test_integers_on_the_grid_survive_as_features(seed: int, step: float) -> None:
    grid = InputGrid.of(3, -1.5, 2.25, step)
    quantized = np.random.default_rng(seed).integers(0, grid.levels + 1, (20, 3))
    np.testing.assert_array_equal(grid.quantize(features_of(grid, quantized)).integers, quantized)
