"""Verdicts: the rule in simulated cases, and what it says against labels of held-out rows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Verdict
from sealserve.protocol.output import Output, Task
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.planner import choose
from sealserve_service.planning.row import RowPlan
from sealserve_service.planning.score_error import CalibrationScores, Margins, Moments, expected_rms, observe
from sealserve_service.planning.verdict import (
    MAX_OK_DISAGREEMENT,
    MAX_WARN_DISAGREEMENT,
    Judgement,
    first_good_plan,
    judge,
)
from tests.support.plans import plan_row, row_plans
from tests.support.serving import linear

Rows = NDArray[np.float64]
RANDOM = np.random.default_rng(16)
BINARY = Output(Task.CLASSIFICATION, 1, (0, 1))
FINER_SETS = LAYOUTS["row"].open_parameter_sets[1:]


def classifier(weights: Rows, intercept: Rows | None = None) -> LinearModel:
    """A classifier with weights (scores, features)."""
    classes = tuple(range(max(2, len(weights))))
    return LinearModel(
        weights,
        np.zeros(len(weights)) if intercept is None else intercept,
        Output(Task.CLASSIFICATION, len(weights), classes),
    )


def planned(model: LinearModel, grid: InputGrid) -> RowPlan:
    return plan_row(model.weights, model.intercept, grid, max_score_error=math.inf)


def judged(model: LinearModel, grid: InputGrid, rows: Rows | None = None) -> Judgement:
    calibration = None if rows is None else CalibrationScores.of(model, rows)
    return judge(planned(model, grid), model, calibration)


# What decides a label, and what is expected of it


def test_the_margins_of_labels() -> None:
    binary = Margins.of(BINARY, np.array([[0.5], [-2.0]]))
    assert (binary.gaps.tolist(), binary.pairs.tolist()) == ([[0.5], [2.0]], [[0, -1]])
    several = Margins.of(Output(Task.CLASSIFICATION, 3, (0, 1, 2)), np.array([[1.0, 4.0, 2.0], [3.0, 3.0, 0.0]]))
    assert several.gaps.tolist() == [[2.0], [0.0]]
    assert several.pairs[several.pair_of[:, 0]].tolist() == [[1, 2], [0, 1]]
    multilabel = Margins.of(Output(Task.MULTILABEL, 2, ("a", "b")), np.array([[1.0, -3.0]]))
    assert multilabel.gaps.tolist() == [[1.0, 3.0]]


def test_the_probability_of_another_label_is_that_of_a_normal_error() -> None:
    scores = np.array([[0.0], [1.0], [-2.0], [50.0]])
    shares = Margins.of(BINARY, scores).disagreement(np.array([1.0]))
    assert shares == pytest.approx([0.5, 0.158655, 0.0227501, 0.0], abs=1e-6)
    both = Margins.of(Output(Task.MULTILABEL, 2, ("a", "b")), np.array([[1.0, -2.0]]))
    assert both.disagreement(np.array([1.0, 1.0])) == pytest.approx([1 - (1 - 0.158655) * (1 - 0.0227501)], abs=1e-6)


def test_classes_whose_errors_are_equal_tie_as_in_plaintext() -> None:
    tied = Margins.of(Output(Task.CLASSIFICATION, 2, (0, 1)), np.array([[1.0, 1.0]]))
    assert tied.disagreement(np.array([0.0])).tolist() == [0.0]


def test_an_error_that_all_classes_share_changes_no_label() -> None:
    """The difference of the errors counts, not the errors.

    They are of features: weights that are almost equal have to stay different.
    """
    common, own = RANDOM.normal(size=30), 1e-3 * RANDOM.normal(size=(3, 30))
    grid, rows = InputGrid.of(30, -5.0, 5.0, 1 / 16), RANDOM.normal(size=(2000, 30)).clip(-5, 5)
    shared = classifier(common + own)
    calibration = CalibrationScores.of(shared, rows)
    plan = plan_row(common + own, shared.intercept, grid, max_score_error=math.inf, parameter_sets=FINER_SETS)
    scores = plan.model.scores(grid.quantize(rows).integers)
    margins, errors = calibration.margins, scores - shared.decision(rows)
    assert margins is not None
    mean, _ = observe(shared.output, grid, plan.model, calibration).disagreement
    each = float(margins.disagreement(np.full(len(margins.pairs), 2 * (errors**2).mean())).mean())
    seen = float((scores.argmax(axis=1) != shared.decision(rows).argmax(axis=1)).mean())
    assert mean == pytest.approx(seen, rel=0.2)
    assert each > 5 * seen, "as if the errors were independent"


def rounded_scores(model: LinearModel, grid: InputGrid, rows: Rows) -> Rows:
    return planned(model, grid).model.scores(grid.quantize(rows).integers)


def test_the_expected_error_is_that_of_uniform_features() -> None:
    model = classifier(RANDOM.normal(size=(4, 50)), RANDOM.normal(size=4))
    grid = InputGrid.of(50, -2.0, RANDOM.uniform(1, 3, 50), 1 / 64)
    rows = RANDOM.uniform(grid.minimum, grid.maximum, (4000, 50))
    for plan in row_plans(model.weights, model.intercept, grid):
        arguments = model.weights, model.intercept, grid, plan.model
        errors = plan.model.scores(grid.quantize(rows).integers) - model.decision(rows)
        observed = observe(model.output, grid, plan.model, CalibrationScores.of(model, rows))
        assert observed.rms == pytest.approx(np.sqrt((errors**2).mean(axis=0)))
        assert observed.maximum == pytest.approx(np.abs(errors).max())
        assert observed.maximum <= plan.total_error_bound
        assert expected_rms(*arguments, Moments.uniform(grid)) == pytest.approx(observed.rms, rel=0.1)
        moments = CalibrationScores.of(model, rows).on(grid).moments
        assert expected_rms(*arguments, moments) == pytest.approx(observed.rms, rel=0.1)


def test_features_on_the_grid_have_no_rounding_error_to_expect() -> None:
    model, grid = classifier(RANDOM.normal(size=(3, 20))), InputGrid.of(20, 0.0, 1.0, 1 / 16)
    rows = RANDOM.integers(0, 17, (500, 20)) / 16
    assert CalibrationScores.of(model, rows).on(grid).moments.rounding.max() < 1e-20
    assert judged(model, grid, rows).expected_rms < judged(model, grid).expected_rms / 10


# The words


@pytest.mark.parametrize("step", [1e-4, 1e-3, 3e-3, 3e-2, 0.2, 1.0])
def test_a_word_is_given_by_the_upper_end_of_the_expected_disagreement(step: float) -> None:
    model = classifier(np.array([[1.0, -1.0, 0.5]]))
    grid, rows = InputGrid.of(3, -4.0, 4.0, step), RANDOM.normal(size=(3000, 3)).clip(-4, 4)
    judgement = judged(model, grid, rows)
    assert judgement.observed is not None
    mean, error = judgement.observed.disagreement
    upper = mean + 1.645 * error
    expected = (
        Verdict.OK
        if upper <= MAX_OK_DISAGREEMENT
        else Verdict.WARN
        if upper <= MAX_WARN_DISAGREEMENT
        else Verdict.REFUSE
    )
    assert judgement.verdict is judgement.grade is expected
    assert bool(judgement.remedy) is (judgement.verdict is not Verdict.OK)
    assert "3,000 calibration rows" in judgement.reason


def test_the_words_are_all_reached() -> None:
    model, rows = classifier(np.array([[1.0, -1.0, 0.5]])), RANDOM.normal(size=(3000, 3)).clip(-4, 4)
    words = {judged(model, InputGrid.of(3, -4.0, 4.0, step), rows).verdict for step in (1e-4, 1e-2, 1.0)}
    assert words == {Verdict.OK, Verdict.WARN, Verdict.REFUSE}


def test_fewer_than_two_hundred_rows_are_never_ok() -> None:
    model, grid = classifier(np.array([[1.0, -1.0]])), InputGrid.of(2, -4.0, 4.0, 1e-6)
    rows = RANDOM.normal(size=(200, 2)).clip(-4, 4)
    assert judged(model, grid, rows).verdict is Verdict.OK
    few = judged(model, grid, rows[:199])
    assert (few.verdict, few.grade) == (Verdict.WARN, Verdict.OK)
    assert "199 calibration rows, too few" in few.reason
    assert few.remedy == "give 200 calibration rows or more"
    assert judged(model, grid, rows[:1]).verdict is Verdict.WARN


def test_rows_that_will_be_refused_are_no_better_than_a_warning() -> None:
    """They get no wrong label, so that they are no reason to refuse the model."""
    model, rows = classifier(np.array([[1.0, -1.0]])), RANDOM.normal(size=(1000, 2)).clip(-4, 4)
    words = {}
    for step in (1e-6, 1e-2, 1.0):
        plan = planned(model, InputGrid.of(2, -4.0, 4.0, step))
        for share in (0.001, 0.0011):
            calibration = CalibrationScores.of(model, rows, outside_share=share)
            words[step, share] = judge(plan, model, calibration)
    fine, coarse = words[1e-6, 0.0011], words[1.0, 0.0011]
    assert words[1e-6, 0.001].verdict is Verdict.OK
    assert (fine.verdict, fine.grade) == (Verdict.WARN, Verdict.OK)
    assert "0.11 % of rows like these are expected to be refused as out of range" in fine.reason
    assert fine.remedy == "widen the ranges with --input-margin or --input-ranges"
    assert words[1e-2, 0.0011].verdict is Verdict.WARN
    assert coarse.verdict is Verdict.REFUSE
    assert "--input-margin" not in coarse.remedy, "that would make labels worse"


def test_labels_that_rows_have_seen_to_differ_count() -> None:
    """Errors that are rare and large: their root mean square says little."""
    model, grid = classifier(np.array([[1.0]])), InputGrid.of(1, -4.0, 4.0, 1e-6)
    calibration = CalibrationScores.of(model, RANDOM.uniform(1, 2, (4000, 1)))
    scores = calibration.scores.copy()
    scores[:200] *= -1e-3  # the plaintext model has another label, and is not sure of it
    margins = Margins.of(model.output, scores)
    odd = dataclasses.replace(calibration, scores=scores, margins=margins)
    assert judge(planned(model, grid), model, calibration).verdict is Verdict.OK
    contradicted = judge(planned(model, grid), model, odd)
    assert contradicted.observed is not None
    assert contradicted.observed.other_labels == 200
    assert contradicted.verdict is Verdict.REFUSE


def test_rows_that_a_wide_model_was_trained_with_are_not_enough() -> None:
    """Any labels of 300 rows in 1,000 features can be learnt: other rows have smaller margins."""
    features = 1000
    train, other = (RANDOM.normal(size=(count, features)).clip(-5, 5) for count in (300, 5000))
    estimator = LogisticRegression(C=100.0, max_iter=2000).fit(train, train @ RANDOM.normal(size=features) > 0)
    model, grid = fold(estimator), InputGrid.of(features, -5.0, 5.0, 10 / 63)
    seen = (rounded_scores(model, grid, other) > 0) != (model.decision(other) > 0)
    assert seen.mean() > 5e-3
    judgement = judged(model, grid, train)
    assert judgement.observed is not None
    mean, error = judgement.observed.disagreement
    assert mean + 1.645 * error <= MAX_OK_DISAGREEMENT, "by margins alone it would be OK"
    assert judgement.verdict in (Verdict.WARN, Verdict.REFUSE)
    assert "if scores were normal" in judgement.reason


def test_without_rows_nothing_is_better_than_unchecked() -> None:
    model = classifier(RANDOM.normal(size=(3, 10)))
    words = {step: judged(model, InputGrid.of(10, -1.0, 1.0, step)) for step in (1e-4, 0.05, 2.0)}
    assert [judgement.verdict for judgement in words.values()] == [Verdict.UNCHECKED, Verdict.WARN, Verdict.REFUSE]
    assert "--calibration" in words[1e-4].remedy
    assert "--input-step" in words[0.05].remedy
    assert "--accept-disagreement" in words[2.0].remedy


def test_a_regression_is_judged_by_the_spread_of_its_scores_and_of_labels_nothing_is_said() -> None:
    model, rows = linear(RANDOM.normal(size=(2, 10))), RANDOM.uniform(-1, 1, (500, 10))
    words = {step: judged(model, InputGrid.of(10, -1.0, 1.0, step), rows) for step in (1e-4, 0.05, 2.0)}
    assert [judgement.verdict for judgement in words.values()] == [Verdict.OK, Verdict.WARN, Verdict.REFUSE]
    assert not any("label" in f"{judgement.reason}{judgement.remedy}" for judgement in words.values())
    one_row = judged(model, InputGrid.of(10, -1.0, 1.0, 1e-4), rows[:1])
    assert (one_row.verdict, one_row.grade) == (Verdict.WARN, Verdict.OK)


def test_a_model_without_weights_is_right() -> None:
    model, grid = linear(np.zeros((2, 3)), [1 / 3, 2 / 7]), InputGrid.of(3, 0.0, 1.0)
    assert judged(model, grid).verdict is Verdict.UNCHECKED
    assert judged(model, grid, RANDOM.random((300, 3))).verdict is Verdict.OK


# Which plan is taken


def test_parameter_sets_are_climbed_until_labels_stay() -> None:
    weights, rows = RANDOM.normal(size=(4, 400)), RANDOM.normal(size=(2000, 400)).clip(-6, 6)
    model, grid = classifier(weights), InputGrid.of(400, -6.0, 6.0, 12 / 2**15)
    plans = row_plans(model.weights, model.intercept, grid)
    calibration = CalibrationScores.of(model, rows)
    judgements = [judge(plan, model, calibration) for plan in plans]
    assert judgements[0].verdict is not Verdict.OK
    first = next(number for number, judgement in enumerate(judgements) if judgement.verdict is Verdict.OK)
    chosen, judgement = first_good_plan(plans, lambda plan: judge(plan, model, calibration))
    assert chosen is plans[first]
    assert judgement.verdict is Verdict.OK


def test_where_none_is_ok_the_cheapest_of_the_best_word_is_taken() -> None:
    model = classifier(RANDOM.normal(size=(4, 40)))
    grid = InputGrid.of(40, -6.0, 6.0, 0.1)
    plans = row_plans(model.weights, model.intercept, grid)
    words = [Verdict.REFUSE, *[Verdict.WARN] * (len(plans) - 1)]
    assert len(plans) > 2
    some = judge(plans[0], model)
    by_plan = {
        id(plan): dataclasses.replace(some, verdict=word, grade=word) for plan, word in zip(plans, words, strict=True)
    }
    chosen, judgement = first_good_plan(plans, lambda plan: by_plan[id(plan)])
    assert chosen is plans[1]
    assert judgement.verdict is Verdict.WARN


def test_the_bound_that_an_operator_asks_for_includes_the_rounding_of_features() -> None:
    model, grid = classifier(RANDOM.normal(size=(4, 40))), InputGrid.of(40, -6.0, 6.0, 0.1)
    plans = row_plans(model.weights, model.intercept, grid)
    rounding = plans[0].input_rounding_error_bound
    assert len(plans) > 1
    for number, plan in enumerate(plans):
        assert max(plan.score_error_bound, rounding) <= plan.total_error_bound <= plan.score_error_bound + rounding
        chosen = choose(plans, model.weights, max_score_error=plan.total_error_bound, hiding_bits=None)
        assert chosen is plans[number]
    with pytest.raises(PlanError, match=r"of which .* comes from rounding features.*--input-step"):
        choose(plans, model.weights, max_score_error=rounding / 2, hiding_bits=None)


# What held-out rows say


def near_ties(random: np.random.Generator) -> tuple[Rows, NDArray[Any], Any]:
    """Classes that are nearly the same."""
    X = random.normal(size=(6000, 20))
    scores = X @ (random.normal(size=20)[:, None] + 0.05 * random.normal(size=(20, 5)))
    return X, (scores + random.normal(size=scores.shape)).argmax(axis=1), LogisticRegression()


def heavy_tails(random: np.random.Generator) -> tuple[Rows, NDArray[Any], Any]:
    X = random.standard_t(1.5, (6000, 15))
    return X, np.tanh(X) @ random.normal(size=15) > 0, make_pipeline(StandardScaler(), LogisticRegression())


def twenty_classes(random: np.random.Generator) -> tuple[Rows, NDArray[Any], Any]:
    y = random.integers(0, 20, 6000)
    return random.normal(size=(20, 30))[y] + random.normal(0, 1.6, (6000, 30)), y, LogisticRegression()


CASES: dict[str, Callable[[np.random.Generator], tuple[Rows, NDArray[Any], Any]]] = {
    "breast cancer": lambda _: (*load_breast_cancer(return_X_y=True), LogisticRegression(max_iter=5000)),
    "wine": lambda _: (*load_wine(return_X_y=True), LogisticRegression(max_iter=5000)),
    "iris": lambda _: (*load_iris(return_X_y=True), LogisticRegression(max_iter=500)),
    "digits": lambda _: (*load_digits(return_X_y=True), LogisticRegression(max_iter=500)),
    "near ties": near_ties,
    "heavy tails": heavy_tails,
    "twenty classes": twenty_classes,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_held_out_rows_agree_with_the_verdict(name: str) -> None:
    """OK: at most 0.1 % of labels differ, as far as so many rows tell. REFUSE: more do."""
    random = np.random.default_rng(0)  # of its own: what other tests draw decides over no near tie here
    X, y, estimator = CASES[name](random)
    order = random.permutation(len(X))
    rows, other = X[order[: len(X) * 6 // 10]], X[order[len(X) * 6 // 10 :]]
    model = fold(estimator.fit(rows, y[order[: len(rows)]]))
    low, high = X.min(axis=0), X.max(axis=0)
    words = set()
    for levels in (7, 255, 2**12, 2**16, 2**20):
        grid = InputGrid.of(model.feature_count, low, high, np.where(high > low, (high - low) / levels, 1.0))
        calibration, integers = CalibrationScores.of(model, rows), grid.quantize(other).integers
        for bits in (None, 40):
            for plan in row_plans(model.weights, model.intercept, grid, hiding_bits=bits):
                word = judge(plan, model, calibration).grade
                words.add(word)
                labels = model.output.predict(plan.model.scores(integers))
                differ = int((labels != model.output.predict(model.decision(other))).sum())
                if word is Verdict.OK:
                    assert differ <= most_of(len(other), 1e-3)
                if word is Verdict.REFUSE and len(other) >= 1000:
                    assert differ > 1e-3 * len(other)
    assert Verdict.OK in words


def most_of(count: int, share: float) -> int:
    """The 99 % quantile of a binomial count."""
    total, most = (1 - share) ** count, 0
    while total < 0.99:
        most += 1
        total += math.comb(count, most) * share**most * (1 - share) ** (count - most)
    return most
