"""Models with published steps: each is trained once and kept in build/bench/models.

To add a model, write a function that trains it and enter it in `MODELS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks import convolutions
from benchmarks.report import OUTPUT
from sealserve_service.models.loading import MODEL_SUFFIXES
from tests.support import mnist

KEPT = OUTPUT / "models"
TRAINING_ROWS = 20_000  # of tables and numbers
CALIBRATION_ROWS = 2000
_TREES = 100


class UnavailableError(Exception):
    """A model cannot be had here; the text says what is missing."""


class Fitted(NamedTuple):
    """A model that has just been trained.

    Attributes:
        model: the estimator.
        X: the rows that it was trained with.
        unseen, y: other rows, and what they are.
        save: writes the file that is served, if that is no pickle.
    """

    model: Any
    X: Any
    unseen: Any
    y: NDArray[Any]
    save: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes:
        train: trains it.
        publish: what serving it publishes.
        library: that trains it.
        suffix: of the file that is served.
        options: more options of `serve`.
        calibration: the suffix of a file of training rows by which it is planned; "" for none.
    """

    train: Callable[[], Fitted]
    publish: str
    library: str = "sklearn"
    suffix: str = ".pkl"
    options: tuple[str, ...] = ()
    calibration: str = ""


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        options: of `serve`, for a model named "model".
        X: rows that it was not trained with, as a client takes them: an array or a DataFrame.
        y: what these rows are.
        expected: the labels that the estimator itself gives them.
    """

    options: tuple[str, ...]
    X: Any
    y: NDArray[Any]
    expected: NDArray[Any]


def trained(name: str) -> Trained:
    """Return a model of `MODELS`, trained now if it is not kept.

    Raises:
        UnavailableError: its library, its data or the service's reader is missing.
    """
    recipe = MODELS[name]
    if find_spec(recipe.library) is None:
        raise UnavailableError(f"{recipe.library} is not installed")
    installed = import_module(recipe.library).__version__
    if recipe.suffix not in MODEL_SUFFIXES:
        raise UnavailableError(f"the service reads no {recipe.suffix} files of {recipe.library}")
    folder = KEPT.resolve() / f"{name.replace(' ', '_').replace(',', '')}-{installed}"  # a service runs elsewhere
    path, test, calibration = folder / f"model{recipe.suffix}", folder / "test.joblib", folder / "calibration"
    if not test.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fitted = recipe.train()
        fitted.save(path) if fitted.save else joblib.dump(fitted.model, path)
        _save_rows(fitted.X[:CALIBRATION_ROWS], calibration.with_suffix(recipe.calibration))
        # Last: what is there is whole.
        joblib.dump((_table(fitted.unseen), fitted.y, fitted.model.predict(fitted.unseen)), test)
    options = [f"--model=model={path}", f"--publish={recipe.publish}", *recipe.options]
    if recipe.suffix == ".pkl":
        options.append("--trust-pickle")
    if recipe.calibration:
        options.append(f"--calibration={calibration.with_suffix(recipe.calibration)}")
    return Trained(tuple(options), *joblib.load(test))


def _save_rows(rows: Any, path: Path) -> None:
    if path.suffix == ".csv":
        rows.to_csv(path, index=False)
    elif path.suffix == ".npy":
        np.save(path, rows)


def _table(rows: Any) -> Any:
    """Return rows as a client takes them: texts are a table of one column."""
    if not isinstance(rows, list):
        return rows
    table = np.empty((len(rows), 1), object)
    table[:, 0] = rows
    return table


# Trees


def numbers() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """30,000 rows of 30 numbers in two classes, that no linear model tells apart well."""
    X, y = make_classification(30_000, 30, n_informative=12, n_redundant=6, flip_y=0.02, class_sep=0.8, random_state=0)
    return X, y


def _of_numbers(model: Any, save: Callable[[Path], object] | None = None) -> Fitted:
    (X, y), seen = numbers(), TRAINING_ROWS
    model.fit(X[:seen], y[:seen])
    return Fitted(model, X[:seen], X[seen:], y[seen:], save)


def _lightgbm() -> Fitted:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=_TREES, num_leaves=31, n_jobs=1, verbose=-1)
    return _of_numbers(model, lambda path: model.booster_.save_model(path))


def _xgboost(**said: Any) -> Fitted:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=_TREES, tree_method="hist", n_jobs=1, **said)
    return _of_numbers(model, lambda path: model.get_booster().save_model(path))


def _histogram() -> Fitted:
    return _of_numbers(HistGradientBoostingClassifier(max_iter=_TREES, max_leaf_nodes=31, early_stopping=False))


def _forest() -> Fitted:
    return _of_numbers(RandomForestClassifier(_TREES, max_depth=8, min_samples_leaf=5, random_state=0))


# Tables and texts


def _categories() -> Fitted:
    """A table of 6 numbers with gaps and 8 columns of 4 to 60 categories."""
    random, count, seen = np.random.default_rng(1), 30_000, TRAINING_ROWS
    frame, logit = pd.DataFrame(), np.zeros(count)
    for number in range(6):
        values = random.normal(50, 10, count)
        logit += random.normal() * (values - 50) / 10
        values[random.random(count) < 0.05] = np.nan
        frame[f"number {number}"] = values.round(1)
    for number, width in enumerate((4, 5, 8, 10, 16, 24, 40, 60)):
        codes = random.choice(width, count, p=(shares := random.random(width) + 0.05) / shares.sum())
        logit += random.normal(0, 0.7, width)[codes]
        frame[f"category {number}"] = pd.Series(codes).map(lambda code: f"value {code}").astype(object)
    y = (logit + random.logistic(size=count) > np.median(logit)).astype(np.int64)
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), list(frame.columns[:6])),
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(frame.columns[6:])),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame[:seen], y[:seen])
    return Fitted(model, frame[:seen], frame[seen:].reset_index(drop=True), y[seen:])


def _texts() -> Fitted:
    """Texts of 80 words out of 12,000, whose frequencies differ between two topics."""
    random, count, words = np.random.default_rng(2), 6_000, 12_000
    common = 1 / np.arange(10, words + 10)
    y = random.integers(0, 2, count)
    texts = [""] * count
    for topic in (0, 1):
        often = common * random.lognormal(0, 0.35, words)
        mine = np.flatnonzero(y == topic)
        drawn = random.choice(words, (len(mine), 80), p=often / often.sum())
        for index, row in zip(mine.tolist(), drawn.tolist(), strict=True):
            texts[index] = " ".join(f"word{number}" for number in row)
    model = make_pipeline(TfidfVectorizer(max_features=8_000), LogisticRegression(C=10))
    model.fit(texts[:4_000], y[:4_000])
    return Fitted(model, texts[:4_000], texts[4_000:], y[4_000:])


# Images


def _digits() -> Fitted:
    images, labels = mnist.images(), mnist.labels()
    if images is None or labels is None:
        raise UnavailableError("the test images of MNIST are not here: run `make data`")
    seen = convolutions.TRAINING_IMAGES
    model = convolutions.fitted(images[:seen], labels[:seen])
    return Fitted(model, images[:seen], images[seen:], labels[seen:])


MODELS = {
    "LightGBM, 100 x 31": Recipe(_lightgbm, "structure", "lightgbm", ".txt"),
    "HistGradientBoosting, 100 x 31": Recipe(_histogram, "structure"),
    "XGBoost, 100 x 31": Recipe(
        lambda: _xgboost(grow_policy="lossguide", max_leaves=31, max_depth=0),
        "structure",
        "xgboost",
        ".json",
        ("--accept-training-values",),
    ),
    "XGBoost, 100 x depth 6": Recipe(
        lambda: _xgboost(max_depth=6), "structure", "xgboost", ".json", ("--accept-training-values",)
    ),
    "random forest, 100 x depth 8": Recipe(_forest, "structure"),
    "one-hot pipeline": Recipe(_categories, "steps", calibration=".csv"),
    "TF-IDF, 8,000 words": Recipe(_texts, "steps"),
    "MNIST, convolutions": Recipe(_digits, "steps", calibration=".npy"),
}
