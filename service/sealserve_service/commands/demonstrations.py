"""Demonstrations: the models that `sealserve demo` trains and serves, with rows to predict."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

_COLUMNS = ("job", "region", "age", "income")
_JOBS, _REGIONS = ("clerk", "driver", "farmer", "nurse", "teacher"), ("east", "north", "south", "west")
_TABLE_ROWS = 4_000
_GAPS = 0.1  # of the fields of a column
_MOST = 450  # rows to predict, one call each


@dataclass(frozen=True, eq=False)
class Demonstration:
    """A fitted model with rows.

    Attributes:
        name: under which it is served.
        title: what it is.
        options: of `sealserve serve`, each for this model alone: a flag and a value.
        estimator: the model.
        seen: the rows of the training.
        unseen: rows to predict.
        truth: their labels.
        names: of the columns; empty for none.
    """

    name: str
    title: str
    options: tuple[tuple[str, str], ...]
    estimator: Any
    seen: NDArray[Any]
    unseen: NDArray[Any]
    truth: NDArray[Any]
    names: tuple[str, ...] = ()

    def save(self, folder: Path) -> list[str]:
        """Save the model, and rows that are typical for it. Return the options of `serve`."""
        model, rows = folder / f"{self.name}.joblib", folder / f"{self.name}.csv"
        joblib.dump(self.estimator, model)
        with rows.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([self.names] if self.names else [])
            # A gap is an empty field.
            writer.writerows([["" if v is None or v != v else v for v in row] for row in self.seen.tolist()])
        options = [("--model", str(model)), ("--calibration", str(rows)), *self.options]
        return [word for flag, value in options for word in (flag, f"{self.name}={value}")]


def _table() -> Demonstration:
    """A pipeline for a table of strings and numbers, both with gaps."""
    random = np.random.default_rng(19)  # no score is within the proven bound of 0: labels cannot differ
    job, region = random.choice(_JOBS, _TABLE_ROWS), random.choice(_REGIONS, _TABLE_ROWS)
    age, income = random.integers(18, 90, _TABLE_ROWS), random.lognormal(10, 0.5, _TABLE_ROWS).round(2)
    value = 1e-4 * income + 0.05 * age + 2.0 * (job == "nurse") - 1.5 * (region == "north")
    labels = np.where(value + random.normal(0, 1, _TABLE_ROWS) > np.median(value), "yes", "no")
    rows = np.empty((_TABLE_ROWS, len(_COLUMNS)), object)
    for position, values in enumerate((job, region, age, income)):
        rows[:, position] = values
        rows[random.random(_TABLE_ROWS) < _GAPS, position] = None if values.dtype.kind == "U" else np.nan
    estimator = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), [0, 1]),
            (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), [2, 3]),
        ),
        LogisticRegression(),
    )
    title = "a table with categories and gaps, LogisticRegression after OneHotEncoder and SimpleImputer"
    return _fitted("table", title, (("--publish", "steps"),), estimator, rows, labels, _COLUMNS)


def _trees() -> Demonstration:
    """A boosted ensemble of trees, whose structure is published."""
    rows, labels = load_breast_cancer(return_X_y=True)
    estimator = HistGradientBoostingClassifier(early_stopping=False)
    title = "breast cancer, HistGradientBoostingClassifier of 100 trees"
    return _fitted("trees", title, (("--publish", "structure"),), estimator, rows, labels)


def _digits() -> Demonstration:
    """A linear model of images."""
    images, labels = load_digits(return_X_y=True)
    options = (("--input-range", "0,16"), ("--input-step", "1"))
    title = "digits of 8 x 8 pixels, LogisticRegression"
    return _fitted("digits", title, options, LogisticRegression(max_iter=5000), images, labels)


def _fitted(
    name: str,
    title: str,
    options: tuple[tuple[str, str], ...],
    estimator: Any,
    rows: NDArray[Any],
    labels: NDArray[Any],
    names: tuple[str, ...] = (),
) -> Demonstration:
    seen, unseen, seen_labels, truth = train_test_split(rows, labels, test_size=0.25, random_state=0)
    with threadpool_limits(1):  # of trees: where cores are busy, threads wait for each other
        estimator.fit(seen, seen_labels)
    return Demonstration(name, title, options, estimator, seen, unseen[:_MOST], truth[:_MOST], names)


_MAKERS: tuple[Callable[[], Demonstration], ...] = (_table, _trees, _digits)


def demonstrations() -> Iterator[Demonstration]:
    """Train the models, one after the other."""
    return (make() for make in _MAKERS)
