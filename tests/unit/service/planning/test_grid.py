"""Which ranges and grids the features take, and what is said when there is none."""

from pathlib import Path
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
from sealserve_service.planning.declared import read_declared_ranges
from sealserve_service.planning.grid import input_ranges

OUTPUT = Output(Task.REGRESSION, 1)
PLAIN = LinearModel(np.ones((1, 2)), np.zeros(1), OUTPUT)
SCALED = LinearModel(np.ones((1, 2)), np.zeros(1), OUTPUT, input_range=(np.array([-1.0, 0.0]), np.array([1.0, 10.0])))
ROWS = np.array([[0.5, 5], [20, 5], [10, 5]])


# Ranges


def test_the_operators_range_goes_first_and_stays_as_it_is() -> None:
    ranges = input_ranges(SCALED, input_range=(0.3, 200), calibration=ROWS)
    assert ranges.minimum.tolist() == [0.3, 0.3]
    assert ranges.maximum.tolist() == [200, 200]


def test_then_the_rows_with_a_margin_rounded_outwards() -> None:
    ranges = input_ranges(SCALED, calibration=ROWS)
    assert ranges.minimum.tolist() == [-12, 5]  # -9.25, down to a multiple of 4: the width is 39
    assert ranges.maximum.tolist() == [32, 5]


values = st.floats(-1e300, 1e300) | st.floats(-100, 100, width=16) | st.integers(-300, 300).map(float)


@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(2, 4), st.just(2)), elements=values),
    margin=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
)
def test_ranges_of_rows_are_widened_by_the_margin_and_an_eighth_at_most(
    rows: NDArray[np.float64], margin: float
) -> None:
    ranges = input_ranges(PLAIN, calibration=rows, input_margin=margin)
    low, high = rows.min(axis=0), rows.max(axis=0)
    width = high - low
    is_free = (ranges.own_step == 0) & (width > 0) & ~((low == 0) & (high == 1))
    assert (ranges.minimum <= low).all()
    assert (ranges.maximum >= high).all()
    assert (ranges.width[width == 0] == 0).all()
    below, above = (low - ranges.minimum) / (width + (width == 0)), (ranges.maximum - high) / (width + (width == 0))
    for reach in (below[is_free], above[is_free]):
        assert (reach >= margin * (1 - 1e-9)).all()
        assert (reach <= margin + (1 + 2 * margin) / 8 * (1 + 1e-9)).all()


def test_of_a_persons_value_the_range_tells_two_or_three_digits() -> None:
    rows = np.array([[0.123456789, 1000.25], [97.654321, 31337.77]])
    ranges = input_ranges(PLAIN, calibration=rows)
    assert ranges.minimum.tolist() == [-64.0, -16384.0]
    assert ranges.maximum.tolist() == [160.0, 49152.0]
    # Retrained with another greatest value, the range is the same.
    again = input_ranges(PLAIN, calibration=rows * [1.01, 1.005])
    assert (again.minimum.tolist(), again.maximum.tolist()) == (ranges.minimum.tolist(), ranges.maximum.tolist())


def test_then_the_models_own_scaler_with_a_margin() -> None:
    ranges = input_ranges(SCALED)
    assert ranges.minimum.tolist() == [-2, -6]
    assert ranges.maximum.tolist() == [2, 16]


def test_natural_bounds_have_no_margin() -> None:
    flags = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    for rows in (flags, flags.astype(bool)):
        ranges = input_ranges(PLAIN, calibration=rows)
        assert (ranges.minimum.tolist(), ranges.maximum.tolist()) == ([0, 0], [1, 1])
        assert ranges.own_step.tolist() == ([1, 1] if rows.dtype == np.bool_ else ranges.own_step.tolist())
    ranges = input_ranges(PLAIN, calibration=np.array([[3, 9], [200, 9]], np.uint8))
    assert (ranges.minimum.tolist(), ranges.maximum.tolist()) == ([0, 0], [255, 255])
    assert ranges.is_declared.all()


def test_rows_out_of_range_are_foretold_by_leaving_each_row_out() -> None:
    random = np.random.default_rng(8)
    rows = random.standard_t(1.5, (300, 2)) * [1e-9, 1e9]
    outside = 0
    for left_out in range(len(rows)):
        others = input_ranges(PLAIN, calibration=np.delete(rows, left_out, axis=0))
        outside += bool(((rows[left_out] < others.minimum) | (rows[left_out] > others.maximum)).any())
    assert outside > 1
    assert input_ranges(PLAIN, calibration=rows).outside_share == outside / len(rows)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_so_many_rows_are_out_of_range_as_was_foretold(margin: float) -> None:
    random = np.random.default_rng(9)
    foretold, seen = 0.0, 0.0
    for _ in range(50):
        ranges = input_ranges(PLAIN, calibration=random.standard_t(1.5, (300, 2)), input_margin=margin)
        others = random.standard_t(1.5, (3000, 2))
        foretold += ranges.outside_share
        seen += float(((others < ranges.minimum) | (others > ranges.maximum)).any(axis=1).mean())
    assert 50 * 1e-3 < foretold == pytest.approx(seen, rel=0.3)


def test_a_value_that_one_row_has_of_two_is_foretold_to_be_out_of_range() -> None:
    """The other rows would have made it a constant."""
    rows = np.zeros((400, 2))
    rows[7, 0] = 1.0
    assert input_ranges(PLAIN, calibration=rows).outside_share == 1 / 400
    rows[9, 0] = 1.0
    assert input_ranges(PLAIN, calibration=rows).outside_share == 0


def test_rows_within_a_range_that_they_did_not_give_foretell_nothing() -> None:
    heavy = np.random.default_rng(8).standard_t(1.5, (300, 2)).clip(-1e6, 1e6)
    assert input_ranges(PLAIN, calibration=heavy).outside_share > 0
    assert input_ranges(PLAIN, calibration=heavy, input_range=(-1e6, 1e6)).outside_share == 0
    assert input_ranges(PLAIN, calibration=(heavy > 5).astype(np.uint8)).outside_share == 0
    assert input_ranges(SCALED).outside_share == 0


# Grids of features' own


def test_rows_of_integers_declare_the_integers() -> None:
    ranges = input_ranges(PLAIN, calibration=np.array([[3, 9], [20, 10]], np.int16))
    assert ranges.is_declared.all()
    assert ranges.own_step.tolist() == [1, 1]
    assert ranges.minimum.tolist() == [-8, 8]
    assert ranges.maximum.tolist() == [32, 11]


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (lambda random: random.integers(0, 2, 400), 1.0),
        (lambda random: random.integers(3, 30, 400), 1.0),
        (lambda random: random.integers(0, 256, 4000) / 255, 1 / 255),
        (lambda random: (random.integers(0, 256, 4000) / 255).astype(np.float32), 1 / 255),
        (lambda random: random.integers(0, 17, 400) / 16, 1 / 16),
        (lambda random: random.integers(40, 80, 400) / 10, 0.1),
        (lambda random: random.integers(0, 30, 400) * 0.37 - 2, 0.37),
        (lambda random: random.normal(size=400), 0.0),
        (lambda random: random.normal(size=400).round(2), 0.0),  # hardly a value comes again
        (lambda random: random.choice([0.1, 0.25, np.pi], 400), 0.0),
        (lambda random: np.full(400, 7.0), 0.0),
    ],
    ids=["0/1", "integers", "k/255", "k/255 as float32", "k/16", "tenths", "shared", "real", "cents", "three", "one"],
)
def test_the_grid_of_rows_is_seen(values: Any, step: float) -> None:
    random = np.random.default_rng(3)
    rows = np.stack([np.asarray(values(random), np.float64) for _ in range(2)], axis=1)
    ranges = input_ranges(PLAIN, calibration=rows)
    assert ranges.own_step == pytest.approx([step, step])
    assert not ranges.is_declared.any()
    if step:
        position = (rows - ranges.minimum) / ranges.own_step
        assert np.abs(position - np.rint(position)).max() < 1e-3, "the range begins on the grid"


def test_the_operators_step_is_declared() -> None:
    ranges = input_ranges(SCALED, input_step=0.25)
    assert ranges.own_step.tolist() == [0.25, 0.25]
    assert ranges.is_declared.all()


def test_one_row_gives_no_range() -> None:
    for model in (PLAIN, SCALED):
        with pytest.raises(InputRangeError, match=r"one calibration row gives no range: .* --input-range LO,HI"):
            input_ranges(model, calibration=ROWS[:1])
    assert input_ranges(PLAIN, calibration=ROWS[:1], input_range=(0.0, 30.0)).maximum.tolist() == [30, 30]


def test_the_ranges_of_images_are_taken_for_those_of_bytes() -> None:
    for greatest in (1.0, 255.0):
        ranges = input_ranges(PLAIN, input_range=(0.0, greatest))
        assert ranges.own_step.tolist() == [greatest / 255] * 2
        assert not ranges.is_declared.any()
    assert input_ranges(PLAIN, input_range=(0.0, 2.0)).own_step.tolist() == [0, 0]


def test_a_grid_that_does_not_begin_at_the_given_minimum_is_not_kept() -> None:
    rows = np.random.default_rng(1).integers(0, 9, (100, 2)).astype(float)
    assert input_ranges(PLAIN, input_range=(0.0, 10.0), calibration=rows).own_step.tolist() == [1, 1]
    assert input_ranges(PLAIN, input_range=(-0.5, 10.0), calibration=rows).own_step.tolist() == [0, 0]


def test_the_weights_are_exact_at_the_mean_of_the_rows_or_in_the_middle() -> None:
    assert input_ranges(SCALED, calibration=ROWS).center.tolist() == pytest.approx([30.5 / 3, 5])
    assert input_ranges(SCALED).center.tolist() == [0, 5]
    assert input_ranges(SCALED, input_range=(0, 8)).center.tolist() == [0, 0], "what cannot be negative is often 0"


# The file of ranges

NAMED = LinearModel(np.ones((1, 3)), np.zeros(1), OUTPUT, feature_names=("age", "income, net", "flag"))


def declared(tmp_path: Path, text: str, model: LinearModel = NAMED) -> Any:
    path = tmp_path / "ranges.csv"
    path.write_bytes(text.encode("utf-8-sig"))
    return read_declared_ranges(path, model.feature_count, model.feature_names)


def test_a_file_gives_ranges_and_steps_of_single_features(tmp_path: Path) -> None:
    file = declared(tmp_path, 'name,min,max,step\n"income, net",0,5000,0.01\r\n\nflag,,,1\n')
    rows = np.array([[20.5, 100, 0], [30.25, 200, 1]])
    ranges = input_ranges(NAMED, declared=file, calibration=rows)
    assert ranges.minimum.tolist()[1:] == [0, 0]
    assert ranges.maximum.tolist()[1:] == [5000, 1]
    assert ranges.own_step.tolist() == [0, 0.01, 1]
    assert ranges.is_declared.tolist() == [False, True, True]


def test_features_without_names_go_by_number(tmp_path: Path) -> None:
    file = declared(tmp_path, "min,name,max\n-1,1,2\n-3,0,4\n", PLAIN)
    ranges = input_ranges(PLAIN, declared=file)
    assert (ranges.minimum.tolist(), ranges.maximum.tolist()) == ([-3, -1], [4, 2])


def test_features_that_the_file_does_not_name_need_a_range(tmp_path: Path) -> None:
    file = declared(tmp_path, "name,min,max\nage,0,120\n")
    with pytest.raises(
        InputRangeMissingError,
        match=r"the range of column 'income, net' \(feature 1\), column 'flag' \(feature 2\) is unknown",
    ):
        input_ranges(NAMED, declared=file)
    assert input_ranges(NAMED, declared=file, input_range=(0, 9)).maximum.tolist() == [120, 9, 9]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "heading"),
        ("age,0,1\n", "heading"),
        ("name,min,max,unit\nage,0,1,y\n", "heading name,min,max,step,at_most_one,exactly_one"),
        ("name,min,max\nage,0\n", "line 2 has 2 fields"),
        ("name,min,max\nage,0,1\nage,0,1\n", "line 3 is of column 'age', named before"),
        ("name,min,max\nh\x1b,0,1\n", r"line 2 is of column 'h\\x1b', which the model does not have: it has age, 'inc"),
        ("name,min,max\nage,0,many\n", r"line 2, column 'age' \(feature 0\): a field is no number"),
        ("name,min,max\nflag,0,inf\n", r"line 2, column 'flag' \(feature 2\): a number is not finite"),
        ("name,min,max\nage,0,\n", r"line 2, column 'age' \(feature 0\): one end of a range is there"),
        (
            "name,min,max,exactly_one,at_most_one\nage,,,a,b\n",
            r"line 2, column 'age' \(feature 0\): two groups are named",
        ),
        ("name,min,max,exactly_one\nage,1,1,a\n", r"line 2, column 'age' \(feature 0\): a feature of a group has two"),
        ("name,min,max,step,exactly_one\nage,0,2,1,a\n", "line 2, .* leave step out"),
        ("name,min,max,exactly_one,exactly_one\nage,0,2,a,b\n", "heading"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputRangeError, match=reason):
        declared(tmp_path, text)


def test_a_file_declares_groups_of_features(tmp_path: Path) -> None:
    """A feature of a group is 0 or 1 unless its line says otherwise, whatever rows were seen."""
    text = 'name,min,max,exactly_one,at_most_one\nflag,,,,x\nage,-1,3,colour,\n"income, net",,, colour ,\n'
    file = declared(tmp_path, text)
    assert file.constraints.group.tolist() == [2, 2, 1]
    assert file.constraints.exactly_one.tolist() == [False, True]
    assert file.constraints.is_checked.all()
    assert (file.minimum.tolist(), file.maximum.tolist(), file.step.tolist()) == ([-1, 0, 0], [3, 1, 1], [4, 1, 1])
    rows = np.array([[-1.0, 1, 0], [3, 0, 0]])
    for ranges in (input_ranges(NAMED, declared=file), input_ranges(NAMED, declared=file, calibration=rows)):
        assert ranges.constraints is file.constraints
        assert ranges.is_declared.all()
        assert ranges.own_levels.tolist() == [1, 1, 1]
        grid = ranges.grid(ranges.own_step, np.ones(3, np.bool_))
        assert grid.quantize(np.array([[3.0, 1, 0], [-1, 1, 1]])).is_refused.tolist() == [True, False]


def test_one_name_under_two_headings_is_two_groups(tmp_path: Path) -> None:
    file = declared(tmp_path, "name,min,max,exactly_one,at_most_one\nage,,,a,\nflag,,,,a\n")
    assert file.constraints.group.tolist() == [1, 0, 2]


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRangeError, match="the ranges cannot be read"):
        read_declared_ranges(tmp_path / "none.csv", 1, ())


# Refusals


def test_each_feature_that_does_not_fit_is_named(tmp_path: Path) -> None:
    file = declared(tmp_path, 'name,min,max,step\nage,1,0,\n"income, net",3,2,1\nflag,0,1,1e-30\n')
    with pytest.raises(InputRangeError) as caught:
        input_ranges(NAMED, declared=file)
    assert str(caught.value) == (
        "column 'age' (feature 0), column 'income, net' (feature 1): the input range is empty, a maximum is below its "
        "minimum: exchange the two; column 'flag' (feature 2): the input step is finer than a 2^32nd of the range: "
        "give a larger step"
    )
    with pytest.raises(InputRangeError, match=r"^the input range is empty"):
        input_ranges(NAMED, input_range=(1, 0))
    rows = np.zeros((9, 3))
    rows[2:, 1] = np.nan
    with pytest.raises(InputRangeError, match=r"row 2, column 'income, net' \(feature 1\); .*; and 2 more values: "):
        input_ranges(NAMED, calibration=rows)


def test_without_a_range_the_error_says_how_to_give_one() -> None:
    with pytest.raises(InputRangeMissingError, match=r"--input-range LO,HI.*--input-ranges FILE.*--calibration FILE"):
        input_ranges(PLAIN, input_step=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"input_range": (1.0, 0.0)},
        {"input_range": (0.0, np.inf)},
        {"input_range": (np.nan, 1.0)},
        {"input_range": (0.0, 1.0), "input_step": 0.0},
        {"input_step": -1.0, "calibration": ROWS},
        {"input_range": (0.0, 1.0), "input_step": np.inf},
    ],
    ids=repr,
)
def test_a_range_or_step_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputRangeError):
        input_ranges(PLAIN, **options)


@pytest.mark.parametrize("input_range", [None, (0.0, 1.0)], ids=["decides", "does not decide"])
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones(2), r"shape \(rows, 2\), not \(2,\)"),
        (np.ones((4, 3)), r"shape \(rows, 2\), not \(4, 3\)"),
        (np.empty((0, 2)), r"not \(0, 2\)"),
        (np.array([["a", "b"]]), "are numbers, not <U1"),
        (np.array([[1.0, None]]), "are numbers, not object"),
        (np.array([[1.0, 2.0], [1.0, np.nan]]), "missing or infinite: row 1, feature 1: replace"),
        (np.array([[np.inf, 2.0]]), "missing or infinite: row 0, feature 0: replace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_calibration_rows_that_do_not_fit_are_refused(rows: Any, reason: str, input_range: Any) -> None:
    with pytest.raises(InputRangeError, match=reason):
        input_ranges(PLAIN, input_range=input_range, calibration=rows)
