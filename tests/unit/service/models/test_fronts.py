"""Fronts: what the columns of a published model take."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder

from sealserve.protocol.column import ColumnKind
from sealserve_service.models.folding import fold
from sealserve_service.models.fronts import Front
from tests.support.tables import labels, rows_of, table

FRAME = table(np.random.default_rng(41)).assign(id="x")
LABELS = labels(FRAME, np.random.default_rng(42))


def front(*branches: Any, X: Any = FRAME) -> Front:
    model = fold(make_pipeline(make_column_transformer(*branches), RidgeClassifier()).fit(X, LABELS)).with_front()
    assert model.published is not None
    return model.published


def test_a_column_is_what_the_steps_read_it_as_and_unused_if_none_does() -> None:
    found = front(
        (SimpleImputer(), ["age"]),
        (OneHotEncoder(), ["city"]),
        (MissingIndicator(features="all"), ["city"]),
        (CountVectorizer(), "words"),
        ("passthrough", ["rooms"]),
    )
    assert {column.name: column.kind for column in found.columns} == {
        "age": ColumnKind.NUMBER,
        "income": ColumnKind.UNUSED,
        "city": ColumnKind.STRING,
        "rooms": ColumnKind.NUMBER,
        "words": ColumnKind.TEXT,
        "id": ColumnKind.UNUSED,
    }


def test_rows_need_no_column_that_is_unused() -> None:
    pipeline = make_pipeline(
        make_column_transformer((SimpleImputer(), ["age", "income"]), (OneHotEncoder(), ["city"])), RidgeClassifier()
    ).fit(FRAME, LABELS)
    model = fold(pipeline).with_front()
    scores = [model.decision(model.features(rows_of(model, X))) for X in (FRAME, FRAME[["city", "income", "age"]])]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0][:, 0], pipeline.decision_function(FRAME), rtol=1e-9)


def test_a_union_of_texts_reads_one_column() -> None:
    union = make_union(CountVectorizer(), CountVectorizer(analyzer="char", ngram_range=(1, 2)))
    for estimator, X in (
        (make_pipeline(make_column_transformer((union, "words")), RidgeClassifier()), FRAME),
        (make_pipeline(union, RidgeClassifier()), FRAME["words"]),
    ):
        model = fold(estimator.fit(X, LABELS))
        rows = rows_of(model, FRAME if X is FRAME else X.to_list())
        scores = model.decision(model.features(rows))
        np.testing.assert_allclose(scores[:, 0], estimator.decision_function(X), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.expected_scores(rows), scores, rtol=1e-9, atol=1e-12)


def test_columns_have_no_names_if_the_estimator_has_none() -> None:
    found = front((SimpleImputer(), [0]), (OneHotEncoder(), [2]), X=FRAME.to_numpy(object))
    assert {column.name for column in found.columns} == {""}
    assert [column.kind for column in found.columns[:3]] == [ColumnKind.NUMBER, ColumnKind.UNUSED, ColumnKind.STRING]


@pytest.mark.parametrize("kind", [ColumnKind.NUMBER, ColumnKind.INTEGER])
def test_ranges_of_columns_become_those_of_features(kind: ColumnKind) -> None:
    found = front((SimpleImputer(add_indicator=True), ["age"]), ("passthrough", ["rooms"]))
    columns = [
        dataclasses.replace(column, minimum=1.0, maximum=6.0, kind=kind) if column.name == "rooms" else column
        for column in found.columns
    ]
    ranges = found.with_columns(columns).ranges
    assert sorted(ranges.low.tolist()) == [-np.inf, 0.0, 1.0]
    [rooms] = np.flatnonzero(ranges.low == 1.0)
    assert (ranges.high[rooms], ranges.is_integral[rooms]) == (6.0, kind is ColumnKind.INTEGER)
