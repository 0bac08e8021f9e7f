"""Kinds of models for tables: pipelines that users have, each with the data that it is for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from tests.support.tables import labels, table

ROW_COUNT = 48_000
NUMBERS = ["age", "income", "rooms"]
STRINGS = ["city", "job"]
_JOBS = ["nurse", "clerk", " farmer", "none of these", "Bär, hunter"]


@dataclass(frozen=True, eq=False)
class Data:
    """Rows and labels."""

    X: Any
    y: Any

    def split(self, count: int) -> tuple["Data", "Data"]:
        """Return `count` rows to train with, and the others."""
        order = np.random.default_rng(1).permutation(len(self.y))
        return self._take(order[:count]), self._take(order[count:])

    def _take(self, chosen: Any) -> "Data":
        if isinstance(self.X, pd.DataFrame):
            return Data(self.X.iloc[chosen].reset_index(drop=True), self.y[chosen])
        return Data(self.X[chosen], self.y[chosen])


@cache
def census(class_count: int) -> Data:
    """48,000 rows of strings, texts, flags and numbers, with gaps."""
    random = np.random.default_rng(3)
    frame = table(random, ROW_COUNT)
    frame = frame.assign(job=random.choice(_JOBS, ROW_COUNT).astype(object), member=random.random(ROW_COUNT) < 0.3)
    frame.loc[random.random(ROW_COUNT) < 0.1, "job"] = None
    frame.loc[random.random(ROW_COUNT) < 0.05, "rooms"] = np.nan
    return Data(frame, labels(frame, random, class_count))


def two() -> Data:
    """The table, with two classes."""
    return census(2)


def three() -> Data:
    """The table, with three classes."""
    return census(3)


def categories() -> Data:
    """Numbers and categories of the table, of the types that boosting takes as they are."""
    data = two()
    return Data(data.X[[*NUMBERS, *STRINGS]].astype(dict.fromkeys(STRINGS, "category")), data.y)


def two_labels() -> Data:
    """The table, with two labels a row."""
    first, second = two(), three()
    return Data(first.X, np.stack([first.y, second.y > 0], axis=1).astype(np.int64))


def amounts() -> Data:
    """The table, with the income for a target."""
    frame = two().X
    return Data(frame.assign(income=0.0), frame["income"].to_numpy())


def _shipped(load: Callable[..., Any]) -> Callable[[], Data]:
    return lambda: Data(*load(return_X_y=True))


IRIS, WINE, CANCER, DIGITS, DIABETES = map(
    _shipped, (load_iris, load_wine, load_breast_cancer, load_digits, load_diabetes)
)


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of model.

    Attributes:
        make: makes an estimator.
        load: loads its data.
        most_trained: the most rows to train with: some estimators take long.
        accepts_training_values: whether publishing it tells of single training rows.
    """

    make: Callable[[], Any]
    load: Callable[[], Data]
    most_trained: int = ROW_COUNT // 2
    accepts_training_values: bool = False


def _columns(numbers: Any, strings: Any = None, *more: Any) -> Any:
    """Treat numbers and strings of the table, in turn, each with a gap filled; leave out others."""
    strings = strings or OneHotEncoder(handle_unknown="ignore")
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), numbers), NUMBERS), (strings, STRINGS), ("passthrough", ["member"]), *more
    )


def _before(*steps: Any) -> Callable[[], Any]:
    """Make a pipeline of steps on the table's columns, scaled and one-hot."""
    return lambda: make_pipeline(_columns(StandardScaler()), *steps)


def _numbers(*steps: Any) -> Callable[[], Any]:
    """Make a pipeline of steps on the table's numbers, filled."""
    return lambda: make_pipeline(make_column_transformer((SimpleImputer(), NUMBERS)), *steps)


def _ordinal(estimator: Any) -> Callable[[], Any]:
    """Make a pipeline of trees on numbers with gaps and codes of strings."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return lambda: make_pipeline(make_column_transformer((codes, STRINGS), ("passthrough", NUMBERS)), estimator)


def _codes() -> Any:
    """Number the strings of the table, what is missing too."""
    return make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder())


def _words(vectorizer: Any, head: Any = None) -> Callable[[], Any]:
    return lambda: make_pipeline(make_column_transformer((vectorizer, "words")), head or LogisticRegression())


def _logistic() -> Any:
    return LogisticRegression(max_iter=500)


def _of_library(module: str, kind: str, **options: Any) -> Callable[[], Any]:
    """Make an estimator of a library that only its own tests import."""
    return lambda: getattr(import_module(module), kind)(**options)


def _boosted(module: str, kind: str, **options: Any) -> Callable[[], Any]:
    return lambda: _ordinal(_of_library(module, kind, **options)())()


_FOREST = {"max_depth": 8, "min_samples_leaf": 5, "random_state": 0, "n_estimators": 50}

KINDS: dict[str, Kind] = {
    "one-hot logistic": Kind(_before(_logistic()), two),
    "one-hot logistic, three classes": Kind(_before(_logistic()), three),
    "rare categories": Kind(
        lambda: make_pipeline(
            _columns(StandardScaler(), OneHotEncoder(min_frequency=0.1, handle_unknown="infrequent_if_exist")),
            _logistic(),
        ),
        two,
    ),
    "splines": Kind(lambda: make_pipeline(_columns(SplineTransformer()), _logistic()), two),
    "GAM of bins": Kind(lambda: make_pipeline(_columns(KBinsDiscretizer(20)), _logistic()), two),
    "products": Kind(
        lambda: make_pipeline(_columns(make_pipeline(StandardScaler(), PolynomialFeatures(2))), RidgeClassifier()), two
    ),
    "quantiles": Kind(lambda: make_pipeline(_columns(QuantileTransformer(n_quantiles=100)), LinearSVC()), two),
    "powers": Kind(lambda: make_pipeline(_columns(PowerTransformer()), _logistic()), three),
    "normalized": Kind(_numbers(StandardScaler(), Normalizer(), _logistic()), three),
    "Fourier features": Kind(_numbers(StandardScaler(), RBFSampler(gamma=0.3, random_state=0), _logistic()), two),
    "Gaussian naive Bayes": Kind(_numbers(GaussianNB()), three),
    "Bernoulli naive Bayes": Kind(
        lambda: make_pipeline(
            make_column_transformer((OneHotEncoder(handle_unknown="ignore"), STRINGS)), BernoulliNB(binarize=None)
        ),
        two,
    ),
    "multinomial naive Bayes": Kind(_words(CountVectorizer(), MultinomialNB()), three),
    "complement naive Bayes": Kind(_words(TfidfVectorizer(), ComplementNB()), three),
    "QDA": Kind(_numbers(StandardScaler(), QuadraticDiscriminantAnalysis()), three),
    "LDA": Kind(_before(LinearDiscriminantAnalysis()), three, 6_000),
    "decision tree": Kind(_ordinal(DecisionTreeClassifier(max_depth=8, min_samples_leaf=5)), two),
    "random forest": Kind(_ordinal(RandomForestClassifier(**_FOREST)), two),
    "random forest, three classes": Kind(_ordinal(RandomForestClassifier(**_FOREST)), three),
    "extra trees": Kind(_ordinal(ExtraTreesClassifier(**_FOREST)), two),
    "gradient boosting": Kind(
        lambda: make_pipeline(
            _columns(StandardScaler()), GradientBoostingClassifier(n_estimators=50, min_samples_leaf=5)
        ),
        two,
        6_000,
    ),
    "hist gradient boosting": Kind(_ordinal(HistGradientBoostingClassifier(early_stopping=False)), two),
    "hist gradient boosting, three classes": Kind(_ordinal(HistGradientBoostingClassifier(max_iter=30)), three),
    "TF-IDF": Kind(_words(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))), two),
    "TF-IDF of characters": Kind(_words(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3))), two),
    "hashed words": Kind(_words(HashingVectorizer(n_features=256)), two),
    "words beside columns": Kind(
        lambda: make_pipeline(_columns(StandardScaler(), None, (TfidfVectorizer(), "words")), _logistic()), three
    ),
    "network without activations": Kind(
        _before(MLPClassifier((8,), activation="identity", max_iter=30, random_state=0)), three, 6_000
    ),
    "linear SVC, one versus one": Kind(_before(SVC(kernel="linear")), three, 2_000),
    "one versus one": Kind(_before(OneVsOneClassifier(LinearSVC())), three, 6_000),
    "one versus rest": Kind(_before(OneVsRestClassifier(SGDClassifier(random_state=0))), three, 6_000),
    "calibrated": Kind(_before(CalibratedClassifierCV(LinearSVC(), cv=3)), two, 6_000),
    "search": Kind(lambda: GridSearchCV(_before(_logistic())(), {}, cv=2), two, 6_000),
    "iris": Kind(lambda: make_pipeline(StandardScaler(), _logistic()), IRIS),
    "iris, QDA": Kind(QuadraticDiscriminantAnalysis, IRIS),
    "wine": Kind(lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")), WINE),
    "wine, hist gradient boosting": Kind(lambda: HistGradientBoostingClassifier(early_stopping=False), WINE),
    "breast cancer": Kind(lambda: make_pipeline(StandardScaler(), _logistic()), CANCER),
    "breast cancer, random forest": Kind(lambda: RandomForestClassifier(**_FOREST), CANCER),
    "breast cancer, hist gradient boosting": Kind(lambda: HistGradientBoostingClassifier(early_stopping=False), CANCER),
    "digits": Kind(lambda: LogisticRegression(max_iter=2000), DIGITS),
    "digits, Fourier features": Kind(
        lambda: make_pipeline(StandardScaler(), RBFSampler(gamma=0.003, n_components=300, random_state=0), _logistic()),
        DIGITS,
    ),
    "digits, random forest": Kind(lambda: RandomForestClassifier(**_FOREST), DIGITS),
    "perceptron": Kind(_before(Perceptron()), three, 6_000),
    "two labels a row": Kind(_before(MultiOutputClassifier(_logistic())), two_labels, 6_000),
    "categorical naive Bayes": Kind(
        lambda: make_pipeline(make_column_transformer((_codes(), STRINGS)), CategoricalNB()), three
    ),
    "polynomial kernel": Kind(_numbers(StandardScaler(), SVC(kernel="poly", coef0=1.0)), three, 2_000),
    "linear NuSVC": Kind(_before(NuSVC(kernel="linear")), two, 2_000),
    "outliers of a linear kernel": Kind(_numbers(MinMaxScaler(), OneClassSVM(kernel="linear", nu=0.1)), two, 2_000),
    "outliers of SGD": Kind(_before(SGDOneClassSVM(nu=0.1, random_state=0)), two, 6_000),
    "isolation forest": Kind(_numbers(IsolationForest(random_state=0)), two, 6_000, accepts_training_values=True),
    "isotonic": Kind(
        _before(CalibratedClassifierCV(LinearSVC(), cv=3, method="isotonic")),
        two,
        6_000,
        accepts_training_values=True,
    ),
    "calibrated forest": Kind(_ordinal(CalibratedClassifierCV(RandomForestClassifier(**_FOREST), cv=2)), two, 6_000),
    "extra tree": Kind(_ordinal(ExtraTreeClassifier(max_depth=8, min_samples_leaf=51, random_state=0)), two),
    "boosted stumps": Kind(_before(GradientBoostingClassifier(n_estimators=50, max_depth=1)), three, 6_000),
    "votes of stumps": Kind(_before(AdaBoostClassifier(random_state=0)), two, 6_000),
    "votes of trees": Kind(
        _before(AdaBoostClassifier(DecisionTreeClassifier(max_depth=4, min_samples_leaf=5), random_state=0)),
        three,
        6_000,
    ),
    "hist gradient boosting, categories": Kind(
        lambda: HistGradientBoostingClassifier(early_stopping=False), categories, 6_000
    ),
    "XGBoost": Kind(_boosted("xgboost", "XGBClassifier", n_jobs=1), two, accepts_training_values=True),
    "LightGBM": Kind(_boosted("lightgbm", "LGBMClassifier", n_jobs=1, verbose=-1), three, accepts_training_values=True),
    "LightGBM, categories": Kind(
        _of_library("lightgbm", "LGBMClassifier", n_jobs=1, verbose=-1), categories, accepts_training_values=True
    ),
    "CatBoost": Kind(
        _boosted("catboost", "CatBoostClassifier", iterations=100, verbose=False, allow_writing_files=False),
        two,
        accepts_training_values=True,
    ),
    "additive model": Kind(
        _of_library("interpret.glassbox", "ExplainableBoostingClassifier", n_jobs=1, outer_bags=2, max_bins=64),
        categories,
        6_000,
    ),
}

REGRESSORS: dict[str, Kind] = {
    "ridge": Kind(_before(Ridge()), amounts),
    "diabetes": Kind(lambda: make_pipeline(StandardScaler(), Ridge()), DIABETES),
    "log link": Kind(_before(PoissonRegressor()), amounts, 6_000),
    "transformed target": Kind(
        lambda: TransformedTargetRegressor(_before(Ridge())(), func=np.log1p, inverse_func=np.expm1), amounts
    ),
    "search of a transformed target": Kind(
        lambda: GridSearchCV(
            TransformedTargetRegressor(_before(Ridge())(), transformer=StandardScaler()),
            {"regressor__ridge__alpha": [1.0]},
        ),
        amounts,
        6_000,
    ),
    "polynomial kernel": Kind(lambda: make_pipeline(StandardScaler(), SVR(kernel="poly", coef0=1.0)), DIABETES),
    "random forest": Kind(_ordinal(RandomForestRegressor(**_FOREST)), amounts, 6_000),
    "hist gradient boosting": Kind(_ordinal(HistGradientBoostingRegressor()), amounts),
    "LightGBM": Kind(
        _boosted("lightgbm", "LGBMRegressor", n_jobs=1, verbose=-1), amounts, accepts_training_values=True
    ),
    "network without activations": Kind(
        _before(MLPRegressor(hidden_layer_sizes=(8,), activation="identity", max_iter=30, random_state=0)),
        amounts,
        6_000,
    ),
}
