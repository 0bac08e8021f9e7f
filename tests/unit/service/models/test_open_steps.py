"""Steps that are published, fitted to random tables, against scikit-learn itself."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from sealserve.protocol.schema import Schema
from sealserve.steps.program import Features
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.fronts import Front, front_of
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import OpenStep
from sealserve_service.models.transformers import column_count, steps_of, transformed
from tests.support.agreement import assert_served
from tests.support.tables import labels, rows_of, table


@pytest.mark.parametrize("change", ["k", "t", "c", "axis", "asarray"])
def test_a_spline_whose_parts_do_not_fit_together_is_refused(change: str) -> None:
    """SciPy would read beyond its arrays."""
    rows = np.random.default_rng(0).normal(size=(50, 1))
    model = make_pipeline(SplineTransformer(), LogisticRegression()).fit(rows, rows[:, 0] > 0)
    (spline,) = model[0].bsplines_
    changes = {"k": 9, "t": spline.t[:-2], "c": spline.c[:-2], "axis": 1, "asarray": np.floor}
    vars(spline)["_" + change if "_" + change in vars(spline) else change] = changes[change]
    with pytest.raises(UnsupportedModelError, match="of a spline do not"):
        fold(model)


@dataclass(frozen=True)
class Kind:
    """A transformer, and which columns of the table it takes."""

    make: Callable[[np.random.Generator], Any]
    columns: tuple[str, ...] | str


NUMBERS, FULL, CITIES = ("age", "income", "rooms"), ("income", "rooms"), ("city", "rooms")


def _filled(transformer: Any) -> Any:
    return make_pipeline(SimpleImputer(), transformer)


KINDS: dict[str, Kind] = {
    "SimpleImputer": Kind(
        lambda random: SimpleImputer(
            strategy=random.choice(["mean", "median", "most_frequent"]), add_indicator=bool(random.integers(2))
        ),
        NUMBERS,
    ),
    "SimpleImputer of texts": Kind(
        lambda _: make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
        ("city",),
    ),
    "SimpleImputer of a number": Kind(lambda _: SimpleImputer(missing_values=3.0, add_indicator=True), FULL),
    "MissingIndicator": Kind(lambda _: MissingIndicator(features="all"), NUMBERS),
    "OneHotEncoder": Kind(
        lambda random: OneHotEncoder(
            handle_unknown="ignore", drop=[None, "first", "if_binary"][random.integers(3)], sparse_output=False
        ),
        CITIES,
    ),
    "OneHotEncoder, infrequent": Kind(
        lambda random: OneHotEncoder(
            handle_unknown="infrequent_if_exist", min_frequency=0.1, drop=[None, "first"][random.integers(2)]
        ),
        CITIES,
    ),
    "OneHotEncoder, error": Kind(lambda _: OneHotEncoder(), CITIES),
    "OrdinalEncoder": Kind(
        lambda random: OrdinalEncoder(
            handle_unknown="use_encoded_value",
            unknown_value=-1,
            encoded_missing_value=-2,
            max_categories=[None, 3][random.integers(2)],
        ),
        CITIES,
    ),
    "KBinsDiscretizer": Kind(
        lambda random: _filled(
            KBinsDiscretizer(
                random.integers(2, 6),
                encode=random.choice(["onehot", "ordinal"]),
                strategy=random.choice(["uniform", "quantile"]),
                quantile_method="averaged_inverted_cdf",
            )
        ),
        NUMBERS,
    ),
    "Binarizer": Kind(lambda _: _filled(Binarizer(threshold=3.0)), NUMBERS),
    "PolynomialFeatures": Kind(
        lambda random: make_pipeline(
            StandardScaler(), PolynomialFeatures(random.integers(1, 4), interaction_only=bool(random.integers(2)))
        ),
        FULL,
    ),
    "SplineTransformer": Kind(
        lambda random: SplineTransformer(
            n_knots=random.integers(5, 9),  # periodic splines need more knots than the degree
            degree=random.integers(1, 5),
            extrapolation=random.choice(["constant", "linear", "continue", "periodic"]),
            include_bias=bool(random.integers(2)),
        ),
        ("income",),
    ),
    "PowerTransformer": Kind(lambda random: PowerTransformer(standardize=bool(random.integers(2))), FULL),
    "PowerTransformer, box-cox": Kind(lambda _: PowerTransformer(method="box-cox"), FULL),
    "QuantileTransformer": Kind(
        lambda random: QuantileTransformer(
            n_quantiles=20, output_distribution=random.choice(["uniform", "normal"]), random_state=0
        ),
        FULL,
    ),
    "Normalizer": Kind(lambda random: _filled(Normalizer(random.choice(["l1", "l2", "max"]))), NUMBERS),
    "FunctionTransformer": Kind(
        lambda random: FunctionTransformer(
            [np.log1p, np.sqrt, np.log, np.square, np.abs, np.cos, np.sin, np.tanh][random.integers(8)]
        ),
        FULL,
    ),
    "FunctionTransformer, growing": Kind(
        lambda random: make_pipeline(
            StandardScaler(), FunctionTransformer([np.exp, np.expm1, np.fabs][random.integers(3)], validate=True)
        ),
        FULL,
    ),
    "FunctionTransformer, clip": Kind(
        lambda random: FunctionTransformer(
            np.clip, kw_args=[{"a_min": 2.0, "a_max": 3e3}, {"min": [2e3, 1.5], "max": [1e4, 4]}][random.integers(2)]
        ),
        FULL,
    ),
    "RBFSampler": Kind(lambda _: make_pipeline(StandardScaler(), RBFSampler(n_components=10, random_state=0)), FULL),
    "MinMaxScaler, clip": Kind(lambda _: MinMaxScaler((-1, 3), clip=True), FULL),
    "MaxAbsScaler, clip": Kind(lambda _: MaxAbsScaler(clip=True), FULL),
    "CountVectorizer": Kind(
        lambda random: CountVectorizer(
            analyzer=random.choice(["word", "char", "char_wb"]), ngram_range=(1, 2), binary=bool(random.integers(2))
        ),
        "words",
    ),
    "TfidfVectorizer": Kind(
        lambda random: TfidfVectorizer(
            sublinear_tf=bool(random.integers(2)),
            norm=[None, "l1", "l2"][random.integers(3)],
            stop_words=[None, "english"][random.integers(2)],
            strip_accents=[None, "unicode", "ascii"][random.integers(3)],
        ),
        "words",
    ),
    "TfidfTransformer": Kind(lambda _: make_pipeline(CountVectorizer(), TfidfTransformer()), "words"),
    "HashingVectorizer": Kind(
        lambda random: HashingVectorizer(
            n_features=32, alternate_sign=bool(random.integers(2)), binary=bool(random.integers(2))
        ),
        "words",
    ),
    "text and projection": Kind(
        lambda _: make_pipeline(TfidfVectorizer(), TruncatedSVD(2, random_state=0), StandardScaler()), "words"
    ),
    "FeatureUnion": Kind(
        lambda _: make_pipeline(
            SimpleImputer(),
            FeatureUnion(
                [
                    ("a", StandardScaler()),
                    ("b", KBinsDiscretizer(3, encode="onehot", quantile_method="averaged_inverted_cdf")),
                ]
            ),
        ),
        NUMBERS,
    ),
    "ColumnTransformer": Kind(
        lambda _: ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["age", "rooms"]),
                ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
                ("words", TfidfVectorizer(), "words"),
            ],
            remainder="passthrough",
        ),
        ("age", "income", "city", "rooms", "words"),
    ),
}


def check(name: str, seed: int, *, plans: bool = False) -> None:
    random = np.random.default_rng(seed)
    frame = table(random)
    y = labels(frame, random, 3)
    kind = KINDS[name]
    X = frame[kind.columns].tolist() if isinstance(kind.columns, str) else frame[list(kind.columns)]
    pipeline = make_pipeline(kind.make(random), StandardScaler(with_mean=False), LogisticRegression(max_iter=300))
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        pipeline.fit(X, y)
        model = fold(pipeline)
        rows = rows_of(model, X)
        scores, own = model.decision(model.features(rows)), pipeline.decision_function(X)
        tolerance = 1e-9 * (1 + np.abs(own).max())
        np.testing.assert_allclose(scores, own, rtol=1e-9, atol=tolerance)
        np.testing.assert_allclose(model.expected_scores(rows), own, rtol=1e-9, atol=tolerance)
        # Rows that differ in no flag have equal scores of two classes, now and then.
        best = np.sort(own.reshape(len(own), -1), axis=1)
        is_clear = best[:, -1] - best[:, -2] > tolerance if own.ndim > 1 else np.abs(own) > tolerance
        found, labels_of_own = model.output.predict(scores), pipeline.predict(X)
        np.testing.assert_array_equal(found[is_clear], labels_of_own[is_clear])
        if plans:
            assert_served(pipeline, model, rows, given=X)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_transformer_is_published(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_within_the_published_bound(name: str) -> None:
    check(name, 1, plans=True)


# What comes out of a transformer, also of rows that its training had none of

ODD: dict[str, list[Any]] = {
    "age": [np.nan, np.inf, -np.inf, 0.0, -0.0, -17.5, 1e300, 5e-324],
    "income": [np.nan, np.inf, -np.inf, 0.0, -1.0, 3e4, 1e-300, 3.0],
    "rooms": [np.nan, np.inf, 2.5, 0.0, -3.0, 77.0, 3.0, 500.0],
    "city": [np.nan, "", "Chur", "bern", "Bern ", "Z\u00fcrich", "Ulm", "\x00"],
    "words": [
        "",
        " ",
        "unknown",
        "B\u00c4R b\u00e4r B\u00e4r",
        "the the cat",
        "\u0130x\u00df \u00b2",
        "x" * 500,
        "\U0001f600 cat",
    ],
}


def with_odd_values(frame: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Rows with two odd values each: gaps, infinities, unknown and empty texts."""
    rows = frame[:12].astype(object).reset_index(drop=True)
    for number in range(len(rows)):
        for column in random.choice(list(ODD), 2, replace=False):
            rows.at[number, column] = ODD[column][random.integers(8)]
    return rows.astype(dict.fromkeys(NUMBERS, np.float64))


def own_features(transformer: Any, rows: Any, width: int) -> tuple[Any, Any]:
    """What scikit-learn makes of each row alone, and which rows it makes finite numbers of."""
    made = []
    for number in range(len(rows)):
        try:
            made.append(np.ravel(as_array(transformer.transform(rows[number : number + 1]))))
        except ValueError:  # infinities, gaps and unknown categories that it does not take
            made.append(np.full(width, np.nan))
    found = np.array(made, np.float64)
    return found, np.isfinite(found).all(axis=1)


def as_array(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)


def check_features(name: str, seed: int) -> None:
    """The published steps make of each row what the transformer makes of it, to 1e-12 relative."""
    random = np.random.default_rng(seed)
    frame = table(random)
    if seed % 3 == 0:
        frame = frame.assign(rooms=3.0)  # a constant
    others = with_odd_values(frame, random)
    kind = KINDS[name]
    is_texts = isinstance(kind.columns, str)
    X, Z = (part[kind.columns if is_texts else list(kind.columns)] for part in (frame, others))
    X, Z = (X.tolist(), Z.tolist()) if is_texts else (X, Z)
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        try:
            transformer = kind.make(random).fit(X)
        except ValueError:
            assume(seed % 3)  # a constant column has no power, and no spline
            raise
        nodes = tuple(steps_of(transformer, "t"))
        front = front_of(nodes, column_count(transformer), () if is_texts else tuple(X.columns))
        found, is_refused = features_of(front, X)
        assert not is_refused.any()
        assert_close(found, as_array(transformer.transform(X)))
        own, is_finite = own_features(transformer, Z, found.shape[1])
        found, is_refused = features_of(front, Z)
        assert not is_refused[is_finite].any()
        assert_close(found[is_finite], own[is_finite])
        alone = features_of(front, Z[-1:])
        assert alone.is_refused == is_refused[-1:]
        assert_close(alone.values, found[-1:])


def assert_close(found: Any, expected: Any) -> None:
    """Values of a row are equal to 1e-12 of the largest: sums and splines may cancel."""
    tolerance = 1e-12 * np.abs(expected).max(axis=1, initial=1.0, keepdims=True)
    assert found.shape == expected.shape
    assert ((found == expected) | (np.abs(found - expected) <= tolerance) | np.isnan(expected)).all()


def features_of(front: Front, rows: Any) -> Features:
    read = Schema.of(front.columns).rows([[text] for text in rows] if isinstance(rows, list) else rows)
    return front.program.features(read)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_steps_make_what_the_transformer_makes(name: str, seed: int) -> None:
    check_features(name, seed)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_steps_make_what_the_transformer_makes_of_more(name: str, seed: int) -> None:
    check_features(name, seed)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_transformer_is_published_at_length(name: str, seed: int) -> None:
    check(name, seed, plans=True)
    check_features(name, seed)


# What stays private


def fitted(transformer: Any, columns: list[str]) -> LinearModel:
    random = np.random.default_rng(3)
    frame = table(random)
    pipeline = make_pipeline(transformer, LogisticRegression(max_iter=300))
    with warnings.catch_warnings(action="ignore"):
        return fold(pipeline.fit(frame[columns], labels(frame, random)))


def published(model: LinearModel) -> list[str]:
    assert model.published is not None
    return [type(step).__name__ for step in model.published.program.steps]


def test_a_scaler_after_an_imputer_stays_private_in_its_branch() -> None:
    branches = [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    ]
    model = fitted(ColumnTransformer(branches), ["age", "income", "city"])
    assert published(model) == ["Impute", "OneHot"]
    # The scaler tells the range of what the imputer has filled.
    assert model.published is not None
    assert [p.name for p in model.published.publications] == [
        "step 'columntransformer__numbers__simpleimputer' (SimpleImputer)",
        "step 'columntransformer__city' (OneHotEncoder)",
    ]


def test_affine_branches_become_one_beside_published_ones() -> None:
    branches = [
        ("scaled", StandardScaler(), ["income", "rooms"]),
        ("also", MinMaxScaler(), ["rooms"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    ]
    model = fitted(ColumnTransformer(branches), ["income", "rooms", "city"])
    assert published(model) == ["OneHot"]
    assert model.published is not None
    assert model.feature_count == 2 + 5  # income and rooms once, four cities and what is missing
    np.testing.assert_array_equal(model.published.program.outputs[:2], [0, 1])


def test_columns_say_what_they_take() -> None:
    branches = [
        ("numbers", SimpleImputer(), ["age"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("words", CountVectorizer(), "words"),
    ]
    model = fitted(ColumnTransformer(branches, remainder="passthrough"), ["age", "income", "city", "words"])
    assert model.published is not None
    found = [(c.name, c.kind.value, c.allows_missing) for c in model.published.columns]
    assert found == [
        ("age", "number", True),
        ("income", "number", False),
        ("city", "string", True),
        ("words", "text", False),
    ]


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda count: QuantileTransformer(n_quantiles=count), "n_quantiles"),
        (lambda count: KBinsDiscretizer(count, quantile_method="averaged_inverted_cdf"), "n_bins"),
        (lambda count: SplineTransformer(count, knots="quantile"), "n_knots"),
    ],
    ids=["quantiles", "bins", "knots"],
)
def test_many_quantiles_tell_of_training_rows(make: Callable[[int], Any], option: str) -> None:
    X = np.random.default_rng(4).normal(size=(300, 1))
    for count, tells in ((90, ""), (120, f"values of training rows, .*: fit it with {option}=100 or fewer")):
        (step,) = steps_of(make(count).fit(X), "t")
        assert isinstance(step, OpenStep)
        assert re.search(tells, step.training_values) if tells else step.training_values == ""
    for uniform in (KBinsDiscretizer(120, strategy="uniform"), SplineTransformer(120)):
        assert [step.training_values for step in steps_of(uniform.fit(X), "t")] == [""]  # type: ignore[union-attr]


# What is refused


@pytest.mark.parametrize(
    ("transformer", "columns", "reason"),
    [
        (TargetEncoder(), ["city"], "means of labels of training rows.*OneHotEncoder"),
        (KNNImputer(), ["age"], "would need training rows.*SimpleImputer"),
        (make_pipeline(SimpleImputer(), Nystroem(n_components=5)), ["age"], "would need training rows.*RBFSampler"),
        (FunctionTransformer(lambda X: X + 1), ["income"], "'<lambda>' is not one that clients know.*pipeline"),
        (FunctionTransformer(np.clip, kw_args={"min": 0.0, "max": None}), ["income"], "'clip' is not one that clients"),
        (make_pipeline(SimpleImputer(), FunctionTransformer(np.round)), ["age"], "'round' is not one that clients"),
        (ColumnTransformer([("t", CountVectorizer(tokenizer=str.split, token_pattern=None), "words")]), ["words"],
         "tokenizer is code of its own"),
        (ColumnTransformer([("t", CountVectorizer(token_pattern="a+"), "words")]), ["words"], "token_pattern 'a"),
        (ColumnTransformer([("t", CountVectorizer(analyzer=str.split), "words")]), ["words"], "analyzer is code"),
    ],
    ids=["labels", "rows", "rows in a pipeline", "lambda", "half", "rounding", "tokenizer", "pattern", "analyzer"],
)  # fmt: skip
def test_what_clients_cannot_or_must_not_compute_is_refused(transformer: Any, columns: list[str], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"step '.*cannot be served: .*{reason}"):
        fitted(transformer, columns)


def test_a_constant_column_without_a_spline_is_named() -> None:
    rows = np.random.default_rng(5).normal(size=(50, 2)) * [1.0, 0.0]
    with pytest.raises(UnsupportedModelError, match=r"column 1 is constant, and its spline has no knots: leave it out"):
        list(steps_of(SplineTransformer().fit(rows), "spline"))


def test_categories_that_are_dates_are_refused() -> None:
    days = pd.DataFrame({"day": pd.to_datetime(["2026-11-30", "2026-12-01"])})
    with pytest.raises(UnsupportedModelError, match=r"of a column are datetimes: make them all texts, or all numbers"):
        list(steps_of(OneHotEncoder().fit(days), "day"))


def test_own_scores_are_computed_whatever_the_steps_give_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """DataFrames between steps, and transformers that are frozen."""
    frame = table(np.random.default_rng(6))[["age", "income", "city"]]
    y = labels(table(np.random.default_rng(6)), np.random.default_rng(7))
    columns = ColumnTransformer(
        [("numbers", SimpleImputer(), ["age", "income"]), ("city", OneHotEncoder(sparse_output=False), ["city"])]
    )
    frozen = FrozenEstimator(clone(columns).fit(frame))
    for first in (columns.set_output(transform="pandas"), frozen):
        pipeline = make_pipeline(first, StandardScaler(), LogisticRegression()).fit(frame, y)
        model = fold(pipeline)
        own = model.expected_scores(rows_of(model, frame))[:, 0]
        np.testing.assert_allclose(own, pipeline.decision_function(frame), rtol=1e-12)
        assert not caplog.messages


def test_own_scores_of_a_network_are_numbers_beside_strings() -> None:
    """Columns that pass through a table with strings are objects, and so are their sums."""
    frame = table(np.random.default_rng(8))
    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    network = MLPRegressor(hidden_layer_sizes=(2,), activation="identity", max_iter=5, random_state=0)
    X = frame[["city", "rooms"]]
    with warnings.catch_warnings(action="ignore"):  # of convergence
        pipeline = make_pipeline(columns, network).fit(X, frame["income"])
    model = fold(pipeline)
    own = model.expected_scores(rows_of(model, X))
    assert own.dtype == np.float64
    np.testing.assert_allclose(own[:, 0], pipeline.predict(X), rtol=1e-12)


def test_categories_of_mixed_types_are_refused() -> None:
    encoder = OneHotEncoder(handle_unknown="ignore").fit(np.array([["a"], ["b"]], object))
    encoder.categories_[0] = np.array(["a", 2], object)
    with pytest.raises(UnsupportedModelError, match="mixed types"):
        list(steps_of(encoder, "city"))


def test_own_values_of_an_encoder_take_none_and_nan_for_missing() -> None:
    values = np.array([["a"], [np.nan], ["b"]], object)
    encoder = OneHotEncoder(sparse_output=False).fit(values)
    missing = np.array([[None], [np.nan]], object)
    np.testing.assert_array_equal(transformed(encoder, missing), [[0, 0, 1], [0, 0, 1]])
