"""Output: scores to predictions, on scores chosen by hand or by hypothesis.

Estimators judge outputs in models/test_folding.py.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.links import MAX_CURVE_POINTS
from sealserve.protocol.output import Curve, Label, Link, Output, Pairwise, Scored, Task

BINARY = Output(Task.CLASSIFICATION, 1, ("no", "yes"), Link.LOGISTIC)
MULTICLASS = Output(Task.CLASSIFICATION, 3, (3, 5, 7), Link.SOFTMAX)
MULTILABEL = Output(Task.MULTILABEL, 2, (0, 1), Link.LOGISTIC)

any_scores = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(3)), elements=st.floats(-1e300, 1e300))


def test_binary_takes_the_second_class_above_zero() -> None:
    scores = np.array([[-1.0], [0.0], [1e-300]])
    assert BINARY.predict(scores).tolist() == ["no", "no", "yes"]
    assert BINARY.decision_function(scores).tolist() == [-1.0, 0.0, 1e-300]


def test_multiclass_takes_the_greatest_score_and_the_first_of_equals() -> None:
    scores = np.array([[1.0, 2.0, 0.0], [4.0, 4.0, 4.0]])
    assert MULTICLASS.predict(scores).tolist() == [5, 3]
    assert MULTICLASS.decision_function(scores) is scores


def test_two_classes_may_have_a_score_each() -> None:
    output = Output(Task.CLASSIFICATION, 2, ("a", "b"), Link.SOFTMAX)
    scores = np.array([[1.0, 0.0]])
    assert output.predict(scores).tolist() == ["a"]
    assert output.decision_function(scores).shape == (1, 2)
    assert output.predict_proba(scores).shape == (1, 2)


def test_multilabel_decides_label_by_label() -> None:
    scores = np.array([[-1.0, 2.0], [3.0, 0.0]])
    assert MULTILABEL.predict(scores).tolist() == [[0, 1], [1, 0]]
    assert MULTILABEL.predict(scores).dtype == np.int64
    np.testing.assert_allclose(MULTILABEL.predict_proba(scores), 1 / (1 + np.exp(-scores)))


@pytest.mark.parametrize(("scalar_target", "shape"), [(True, (4,)), (False, (4, 1))])
def test_regression_keeps_the_shape_of_its_target(scalar_target: bool, shape: tuple[int, ...]) -> None:
    output = Output(Task.REGRESSION, 1, scalar_target=scalar_target)
    assert output.predict(np.ones((4, 1))).shape == shape


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [((3, 5), np.int64), ((0.5, 1.5), np.float64), ((False, True), np.bool_), (("a", "bcd"), np.dtype("<U3"))],
)
def test_labels_have_their_natural_dtype(classes: tuple[Label, ...], dtype: Any) -> None:
    assert Output(Task.CLASSIFICATION, 1, classes).predict(np.ones((2, 1))).dtype == dtype


def test_no_rows_are_no_predictions() -> None:
    for output in (BINARY, MULTICLASS, MULTILABEL):
        none = np.empty((0, output.score_count))
        assert len(output.predict(none)) == len(output.decision_function(none)) == len(output.predict_proba(none)) == 0


@pytest.mark.parametrize("link", [Link.SOFTMAX, Link.OVR_LOGISTIC, Link.MODIFIED_HUBER])
@settings(deadline=None)
@given(scores=any_scores)
def test_class_probabilities_sum_to_one_however_far_the_scores(link: Link, scores: NDArray[np.float64]) -> None:
    probabilities = Output(Task.CLASSIFICATION, 3, ("a", "b", "c"), link).predict_proba(scores)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.parametrize("link", [Link.OVR_LOGISTIC, Link.MODIFIED_HUBER])
def test_zero_rows_become_equal_shares_unless_they_are_kept(link: Link) -> None:
    scores = np.full((1, 3), -1e6)
    shared = Output(Task.CLASSIFICATION, 3, (1, 2, 3), link)
    kept = Output(Task.CLASSIFICATION, 3, (1, 2, 3), link, keeps_zero_rows=True)
    np.testing.assert_allclose(shared.predict_proba(scores), 1 / 3)
    assert kept.predict_proba(scores).tolist() == [[0.0, 0.0, 0.0]]


def test_modified_huber_clips() -> None:
    output = Output(Task.CLASSIFICATION, 1, (0, 1), Link.MODIFIED_HUBER)
    scores = np.array([[-2.0], [-0.5], [3.0]])
    assert output.predict_proba(scores).tolist() == [[1.0, 0.0], [0.75, 0.25], [0.0, 1.0]]


def test_no_link_no_probabilities() -> None:
    with pytest.raises(NoSuchMethodError, match="use predict or decision_function"):
        Output(Task.CLASSIFICATION, 1, (0, 1)).predict_proba(np.ones((1, 1)))


def test_a_regression_has_no_decision_function() -> None:
    with pytest.raises(AttributeError, match="no decision_function"):
        Output(Task.REGRESSION, 1).decision_function(np.ones((1, 1)))


def test_a_classifier_of_regressors_has_no_decision_function() -> None:
    output = Output(Task.CLASSIFICATION, 3, (3, 5, 9), has_no_decision_function=True)
    with pytest.raises(NoSuchMethodError, match="model has no decision_function: use predict"):
        output.decision_function(np.ones((1, 3)))
    with pytest.raises(NoSuchMethodError, match=r"no probabilities: use predict$"):
        output.predict_proba(np.ones((1, 3)))
    assert output.predict(np.eye(3)).tolist() == [3, 5, 9]


@given(scores=hnp.arrays(np.float64, (5, 1), elements=st.floats(-1e6, 1e6)))
def test_softmax_of_one_score_is_that_of_itself_and_its_opposite(scores: NDArray[np.float64]) -> None:
    one = Output(Task.CLASSIFICATION, 1, ("no", "yes"), Link.SOFTMAX)
    two = Output(Task.CLASSIFICATION, 2, ("no", "yes"), Link.SOFTMAX)
    np.testing.assert_allclose(one.predict_proba(scores), two.predict_proba(np.hstack([-scores, scores])), atol=1e-15)


@pytest.mark.parametrize(("link", "function"), [(Link.LOG, np.exp), (Link.LOG1P, np.expm1)])
def test_a_log_link_turns_scores_into_targets(link: Link, function: Any) -> None:
    output = Output(Task.REGRESSION, 2, link=link)
    scores = np.array([[0.0, -1.5], [2.0, 800.0]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(output.predict(scores), function(scores))
    assert output.predict(scores)[1, 1] == np.inf
    scalar = Output(Task.REGRESSION, 1, link=link, scalar_target=True)
    np.testing.assert_array_equal(scalar.predict(scores[:, :1]), function(scores[:, 0]))
    with pytest.raises(NoSuchMethodError, match="no probabilities"):
        output.predict_proba(scores)
    assert Scored(output, scores).probabilities is None


def test_the_probabilities_of_members_are_averaged_and_decide() -> None:
    output = Output(Task.CLASSIFICATION, 3, ("no", "yes"), Link.LOGISTIC, member_count=3)
    scores = np.array([[9.0, -0.1, -0.1], [-9.0, 0.1, 0.1]])  # most members say otherwise
    each = 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(output.predict_proba(scores)[:, 1], each.mean(axis=1))
    assert output.predict(scores).tolist() == ["yes", "no"]
    several = Output(Task.CLASSIFICATION, 6, (1, 2, 3), Link.OVR_LOGISTIC, member_count=2)
    scores = np.random.default_rng(0).normal(size=(5, 6))
    each = (1 / (1 + np.exp(-scores))).reshape(5, 2, 3)
    expected = (each / each.sum(axis=2, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(several.predict_proba(scores), expected)
    np.testing.assert_array_equal(several.predict(scores), expected.argmax(axis=1) + 1)
    for unsaid in (output, several):
        with pytest.raises(NoSuchMethodError, match="no decision_function"):
            unsaid.decision_function(np.zeros((1, unsaid.score_count)))


def test_curves_are_constant_beyond_their_ends() -> None:
    curve = Curve((-1.0, 0.0, 2.0), (0.1, 0.4, 0.9))
    output = Output(Task.CLASSIFICATION, 1, (0, 1), Link.CURVES, curves=(curve,))
    scores = np.array([[-5.0], [-0.5], [1.0], [7.0]])
    np.testing.assert_allclose(output.predict_proba(scores)[:, 1], [0.1, 0.25, 0.65, 0.9])
    assert output.predict(scores).tolist() == [0, 0, 1, 1]
    zero = Output(Task.CLASSIFICATION, 2, (0, 1), Link.CURVES, curves=(Curve((0.0,), (0.0,)),) * 2)
    np.testing.assert_array_equal(zero.predict_proba(np.ones((1, 2))), [[0.5, 0.5]])


@given(scores=hnp.arrays(np.float64, (8, 6), elements=st.floats(-3, 3)))
def test_pairs_of_classes_vote(scores: NDArray[np.float64]) -> None:
    """The oracle counts one row and one pair at a time."""
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected_votes, expected_confidences = np.zeros((2, 8, 4))
    for row in range(8):
        votes, sums = [0] * 4, [0.0] * 4
        for (first, second), score in zip(pairs, scores[row].tolist(), strict=True):
            votes[first if score > 0 else second] += 1
            sums[first] += score
            sums[second] -= score
        expected_votes[row] = votes
        expected_confidences[row] = [v + s / (3 * (abs(s) + 1)) for v, s in zip(votes, sums, strict=True)]
    for pairwise in (Pairwise.VOTES, Pairwise.PAIRS, Pairwise.CONFIDENCES):
        output = Output(Task.CLASSIFICATION, 6, tuple("abcd"), pairwise=pairwise)
        by = expected_confidences if pairwise is Pairwise.CONFIDENCES else expected_votes
        ties = np.sort(by, axis=1)[:, -1] - np.sort(by, axis=1)[:, -2] < 1e-12
        expected = np.array(list("abcd"))[by.argmax(axis=1)]
        kept = ~ties if pairwise is Pairwise.CONFIDENCES else slice(None)  # sums are rounded in another order
        np.testing.assert_array_equal(output.predict(scores)[kept], expected[kept])
        decision = scores if pairwise is Pairwise.PAIRS else expected_confidences
        np.testing.assert_allclose(output.decision_function(scores), decision, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    for method in (MULTICLASS.predict, MULTICLASS.predict_proba, MULTICLASS.decision_function):
        with pytest.raises(ValueError, match=r"shape \(rows, 3\)"):
            method(np.ones(shape))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((Task.REGRESSION, 0), "at least one score"),
        ((Task.REGRESSION, 1, (1,)), "1 classes, but"),
        ((Task.CLASSIFICATION, 1, (1, 2, 3)), "3 classes, but the scores decide between 2"),
        ((Task.CLASSIFICATION, 3, (1, 2)), "2 classes, but the scores decide between 3"),
        ((Task.REGRESSION, 1, (), Link.LOGISTIC), "link logistic does not fit regression"),
        ((Task.CLASSIFICATION, 1, (0, 1), Link.OVR_LOGISTIC), "link ovr_logistic does not fit classification with 1"),
        ((Task.CLASSIFICATION, 3, (0, 1, 2), Link.LOGISTIC), "link logistic does not fit"),
        ((Task.MULTILABEL, 2, (0, 1), Link.SOFTMAX), "link softmax does not fit multilabel"),
        ((Task.CLASSIFICATION, 1, (0, "a")), "not int, str"),
        ((Task.CLASSIFICATION, 1, (0, True)), "not bool, int"),
        ((Task.CLASSIFICATION, 1, (b"a", b"b")), "not bytes"),
        ((Task.CLASSIFICATION, 1, ("a", "a")), "a class occurs twice"),
        ((Task.CLASSIFICATION, 1, ("a", "a\0")), "ends with NUL"),
        ((Task.CLASSIFICATION, 1, ("a", "\udc80")), "not valid Unicode"),
        ((Task.CLASSIFICATION, 1, (0, 2**63)), "more than 64 bits"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Output(*fields)


CURVE = Curve((0.0, 1.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"member_count": 0}, "of 0 classifiers"),
        ({"member_count": 4}, "6 scores cannot be those of 4"),
        ({"member_count": 2}, "link none does not fit"),
        ({"member_count": 2, "task": Task.REGRESSION, "classes": ()}, "only the probabilities of classifiers"),
        ({"link": Link.CURVES}, "0 curves for 6 scores"),
        ({"link": Link.CURVES, "curves": (CURVE,) * 5}, "5 curves for 6 scores"),
        ({"curves": (CURVE,) * 6}, "6 curves for 6 scores with link none"),
        ({"pairwise": Pairwise.VOTES, "link": Link.SOFTMAX}, "link softmax does not fit"),
        ({"pairwise": Pairwise.VOTES, "score_count": 5}, "5 scores are not those of all pairs"),
        ({"pairwise": Pairwise.VOTES, "score_count": 1, "classes": (0, 1)}, "of all pairs of three classes"),
        ({"pairwise": Pairwise.VOTES, "task": Task.MULTILABEL}, "are not those of all pairs"),
        ({"pairwise": Pairwise.VOTES, "classes": (0, 1, 2)}, "3 classes, but the scores decide between 4"),
        ({"link": Link.LOG}, "link log does not fit classification"),
    ],
)
def test_members_curves_and_pairs_that_contradict_the_rest_are_refused(fields: dict[str, Any], reason: str) -> None:
    valid: dict[str, Any] = {"task": Task.CLASSIFICATION, "score_count": 6, "classes": tuple(range(6))}
    Output(**valid)
    with pytest.raises(ValueError, match=reason):
        Output(**valid | fields)


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    [
        ((), ()),
        ((0.0,), (0.0, 1.0)),
        ((0.0, 0.0), (0.0, 1.0)),
        ((1.0, 0.0), (0.0, 1.0)),
        ((0.0, np.inf), (0.0, 1.0)),
        ((0.0, np.nan), (0.0, 1.0)),
        ((0.0, 1.0), (0.0, 1.5)),
        ((0.0, 1.0), (-0.5, 1.0)),
        ((0.0, 1.0), (0.0, np.nan)),
    ],
)
def test_curves_that_are_none_are_refused(scores: tuple[float, ...], probabilities: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Curve(scores, probabilities)


def test_the_points_of_all_curves_are_bounded() -> None:
    curve = Curve(tuple(map(float, range(MAX_CURVE_POINTS // 2))), (0.5,) * (MAX_CURVE_POINTS // 2))
    Output(Task.CLASSIFICATION, 2, (0, 1), Link.CURVES, curves=(curve, curve))
    with pytest.raises(ValueError, match="more than 262144 points"):
        Output(Task.CLASSIFICATION, 3, (0, 1, 2), Link.CURVES, curves=(curve, curve, CURVE))


@pytest.mark.parametrize("fields", [(Task.REGRESSION, 2), (Task.CLASSIFICATION, 1, (0, 1))])
def test_only_a_regression_with_one_score_has_a_scalar_target(fields: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="scalar target"):
        Output(*fields, scalar_target=True)
