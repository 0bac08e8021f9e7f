"""Steps that are published, fitted to random tables, against scikit-learn itself."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LogisticRegression
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

from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.transformers import steps_of, transformed
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
        lambda random: HashingVectorizer(n_features=32, alternate_sign=bool(random.integers(2))), "words"
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


def check(name: str, seed: int) -> None:
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


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_transformer_is_published(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_transformer_is_published_at_length(name: str, seed: int) -> None:
    check(name, seed)


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


# What is refused


@pytest.mark.parametrize(
    ("transformer", "columns", "reason"),
    [
        (TargetEncoder(), ["city"], "means of labels of training rows.*OneHotEncoder"),
        (KNNImputer(), ["age"], "would need training rows.*SimpleImputer"),
        (make_pipeline(SimpleImputer(), Nystroem(n_components=5)), ["age"], "would need training rows.*RBFSampler"),
        (FunctionTransformer(lambda X: X + 1), ["income"], "'<lambda>' is not one that clients know.*pipeline"),
        (make_pipeline(SimpleImputer(), FunctionTransformer(np.round)), ["age"], "'round' is not one that clients"),
        (ColumnTransformer([("t", CountVectorizer(tokenizer=str.split, token_pattern=None), "words")]), ["words"],
         "tokenizer is code of its own"),
        (ColumnTransformer([("t", CountVectorizer(token_pattern="a+"), "words")]), ["words"], "token_pattern 'a"),
        (ColumnTransformer([("t", CountVectorizer(analyzer=str.split), "words")]), ["words"], "analyzer is code"),
    ],
    ids=["labels", "rows", "rows in a pipeline", "lambda", "rounding", "tokenizer", "pattern", "analyzer"],
)  # fmt: skip
def test_what_clients_cannot_or_must_not_compute_is_refused(transformer: Any, columns: list[str], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"step '.*cannot be served: .*{reason}"):
        fitted(transformer, columns)


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
