"""Models and rows on which the accuracy of plans is measured.

Each case has rows to calibrate with and rows that nobody has seen. Data are made, or scikit-learn's
own; nothing is fetched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sealserve.protocol.output import Output, Task
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel

Rows = NDArray[Any]

NAMES = (
    "breast cancer, raw",
    "breast cancer",
    "wine, raw",
    "iris",
    "digits",
    "diabetes",
    "housing",
    "20 classes",
    "log-normal",
    "timestamps",
    "census",
    "1,000 classes",
    "5,000 features",
    "near ties",
    "2,000 one-hot",
    "heavy tails",
    "units from 1e-9 to 1e9",
    "counts",
    "a constant with weight 10,000",
    "shares of 100 words",
    "weighted words",
    "answers from 1 to 5",
    "collinear",
    "min-max scaled",
    "prices in cents",
    "skewed amounts",
    "flags and scores",
    "temperatures",
    "far from zero",
)
"""Of the cases, in their order."""


@dataclass(frozen=True, eq=False)
class AccuracyCase:
    """A model with rows.

    Attributes:
        name: of the case.
        make_model: makes the model, which may take seconds.
        calibration: rows that the operator has.
        held_out: rows of clients.
        input_range: what the operator gave so far; None for the calibration rows.
    """

    name: str
    make_model: Callable[[], LinearModel]
    calibration: Rows
    held_out: Rows
    input_range: tuple[float, float] | None = None

    @cached_property
    def model(self) -> LinearModel:
        """The model."""
        return self.make_model()


def _fitted(
    name: str, estimator: Any, rows: Rows, targets: Rows, input_range: tuple[float, float] | None = None
) -> AccuracyCase:
    order = np.random.default_rng(0).permutation(len(rows))
    count = int(len(rows) * 0.6)
    seen, unseen = order[:count], order[count:]

    def make_model() -> LinearModel:
        return fold(estimator.fit(rows[seen], targets[seen]))

    return AccuracyCase(name, make_model, rows[seen], rows[unseen], input_range)


def _given(name: str, weights: Rows, intercept: Rows, rows: Rows) -> AccuracyCase:
    classes = tuple(range(max(2, len(weights))))
    model = LinearModel(weights, intercept, Output(Task.CLASSIFICATION, len(weights), classes))
    half = len(rows) // 2
    return AccuracyCase(name, lambda: model, rows[:half], rows[half:])


def _scaled(**options: Any) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, **options))


def _tables() -> Iterator[AccuracyCase]:
    rows, labels = load_breast_cancer(return_X_y=True)
    yield _fitted("breast cancer, raw", LogisticRegression(max_iter=5000), rows, labels, input_range=(0, 4300))
    yield _fitted("breast cancer", _scaled(), rows, labels)
    rows, labels = load_wine(return_X_y=True)
    yield _fitted("wine, raw", LogisticRegression(max_iter=5000), rows, labels, input_range=(0, 1700))
    yield _fitted("iris", LogisticRegression(max_iter=500), *load_iris(return_X_y=True))
    rows, labels = load_digits(return_X_y=True)
    yield _fitted("digits", LogisticRegression(max_iter=1000), rows / 16, labels, (0, 1))
    yield _fitted("diabetes", Ridge(0.1), *load_diabetes(return_X_y=True))


def _housing(random: np.random.Generator) -> AccuracyCase:
    """Eight columns of very different scales, five classes."""
    count = 8000
    income, age = random.lognormal(1.2, 0.5, count).clip(0.5, 15), random.integers(1, 53, count)
    rooms, bedrooms = random.lognormal(1.6, 0.35, count), random.lognormal(0.07, 0.2, count)
    people, occupants = random.lognormal(7, 0.75, count).clip(3, 30000), random.lognormal(1.05, 0.3, count)
    north = random.uniform(32.5, 42, count)
    east = -114 - (north - 32.5) - random.uniform(0, 1.5, count)
    rows = np.column_stack([income, age, rooms, bedrooms, people, occupants, north, east])
    value = rows @ [0.45, 0.01, -0.1, 0.6, -3e-5, -0.15, -0.4, -0.35] + random.normal(0, 0.4, count)
    return _fitted(
        "housing", _scaled(), rows, np.digitize(value, np.quantile(value, [0.2, 0.4, 0.6, 0.8])), (-130, 30000)
    )


def _one_hot(random: np.random.Generator, sizes: tuple[int, ...], count: int) -> Rows:
    return np.hstack([np.eye(size)[random.integers(0, size, count)] for size in sizes])


def _made(random: np.random.Generator) -> Iterator[AccuracyCase]:
    rows: Rows
    centers, labels = random.normal(0, 1, (20, 30)), random.integers(0, 20, 6000)
    yield _fitted(
        "20 classes", LogisticRegression(max_iter=500), centers[labels] + random.normal(0, 1.6, (6000, 30)), labels
    )
    rows, weights = random.normal(0, 1, (5000, 20)), random.normal(0, 1, 20)
    yield _fitted("log-normal", _scaled(), np.exp(2 * rows), rows @ weights + random.normal(0, 0.5, 5000) > 0)
    others, times = random.normal(0, 1, (5000, 6)), random.uniform(1.6e9, 1.75e9, (5000, 2))
    value = (times[:, 0] - 1.675e9) / 5e7 + others @ [1, -1, 0.5, 0.2, 0, 1]
    yield _fitted("timestamps", _scaled(), np.hstack([times, others]), value + random.normal(0, 0.3, 5000) > 0)
    numbers = np.column_stack(
        [
            random.integers(17, 90, 6000),
            random.lognormal(12, 0.5, 6000).round(),
            random.integers(1, 17, 6000),
            np.where(random.random(6000) < 0.08, random.lognormal(9, 1, 6000), 0).round(),
            random.integers(1, 99, 6000),
        ]
    )
    rows = np.hstack([numbers, _one_hot(random, (9, 16, 7, 14, 6, 5, 2, 42), 6000)])
    value = rows @ np.concatenate([[0.03, 0, 0.3, 1e-4, 0.03], random.normal(0, 0.7, rows.shape[1] - 5)])
    yield _fitted("census", _scaled(), rows, value + random.normal(0, 1, 6000) > np.median(value))
    centers, labels = random.normal(0, 1, (1000, 64)), random.integers(0, 1000, 6000)
    rows = centers[labels] + random.normal(0, 1, (6000, 64))
    yield _given("1,000 classes", centers - centers.mean(0), -0.5 * (centers**2).sum(1), rows)
    rows = random.normal(0, 1, (3000, 5000))
    value = rows @ (random.normal(0, 1, 5000) * (random.random(5000) < 0.2))
    yield _fitted("5,000 features", LogisticRegression(C=0.01), rows, value > 0)
    weights = random.normal(0, 1, 40) + 1e-3 * random.normal(0, 1, (5, 40))
    yield _given("near ties", weights, np.zeros(5), random.normal(0, 1, (6000, 40)))
    rows = _one_hot(random, (50,) * 40, 4000)
    value = rows @ random.normal(0, 1, 2000) + random.normal(0, 0.5, 4000)
    yield _fitted("2,000 one-hot", LogisticRegression(), rows, value > 0)
    rows = random.standard_t(1.5, (5000, 15))
    yield _fitted("heavy tails", _scaled(), rows, np.tanh(rows) @ random.normal(0, 1, 15) > 0)
    rows, sizes = random.normal(0, 1, (5000, 25)), 10.0 ** random.integers(-9, 10, 25)
    yield _fitted(
        "units from 1e-9 to 1e9", _scaled(), rows * sizes, np.digitize(rows @ random.normal(0, 1, 25), [-3, 0, 3])
    )
    rows = random.poisson(random.lognormal(1, 1, 30), (5000, 30)).astype(float)
    yield _fitted("counts", LinearRegression(), rows, rows @ random.normal(0, 1, 30) / 5 + random.normal(0, 1, 5000))
    rows = np.column_stack([random.normal(0, 1, (4000, 10)), np.full(4000, 5.0)])
    weights = np.append(random.normal(0, 1, 10), 1e4)[None]
    yield _given("a constant with weight 10,000", weights, np.array([-5e4]), rows)


def _more(random: np.random.Generator) -> Iterator[AccuracyCase]:
    """Ten more."""
    rows: Rows
    rows = random.dirichlet(np.full(100, 0.1), 4000)
    yield _fitted(
        "shares of 100 words",
        LogisticRegression(C=100, max_iter=500),
        rows,
        rows @ random.normal(0, 1, (100, 4)) @ np.eye(4)[:, 0] > 0,
    )
    rows = random.poisson(0.3, (4000, 300)) * random.lognormal(1, 0.5, 300)
    yield _fitted("weighted words", LogisticRegression(max_iter=500), rows, rows @ random.normal(0, 0.1, 300) > 0)
    rows = random.integers(1, 6, (4000, 40))
    yield _fitted(
        "answers from 1 to 5",
        LogisticRegression(max_iter=500),
        rows.astype(float),
        np.digitize(rows @ random.normal(0, 1, 40), [-9, -6, 9]),
    )
    rows = random.normal(0, 1, (4000, 12)).cumsum(axis=1)
    yield _fitted("collinear", _scaled(C=10), rows, rows @ random.normal(0, 1, 12) > 0)
    rows = random.uniform(0, 1, (5000, 50)) ** 4
    yield _fitted(
        "min-max scaled", make_pipeline(MinMaxScaler(), LogisticRegression()), rows, rows @ random.normal(0, 1, 50) > 0
    )
    rows = np.round(random.lognormal(3, 1, (4000, 15)), 2)
    yield _fitted("prices in cents", _scaled(), rows, np.log(rows) @ random.normal(0, 1, 15) > 0)
    rows = random.beta(0.5, 5, (4000, 8)) * [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7]
    yield _fitted("skewed amounts", _scaled(), rows, rows / rows.mean(0) @ random.normal(0, 1, 8) > 0)
    rows = np.hstack([random.integers(0, 2, (4000, 60)), random.normal(0, 1, (4000, 5))])
    yield _fitted("flags and scores", LogisticRegression(), rows, rows @ random.normal(0, 1, 65) > 0)
    rows = random.normal(20, 5, (4000, 24)) + 10 * np.sin(np.arange(24) / 4)
    yield _fitted("temperatures", LinearRegression(), np.round(rows, 1), rows @ random.normal(0, 1, 24))
    rows = random.normal(1e6, 1, (4000, 6))
    yield _fitted("far from zero", _scaled(), rows, (rows - 1e6) @ random.normal(0, 1, 6) > 0)


def accuracy_cases(chosen: Callable[[str], bool] = lambda name: True) -> Iterator[AccuracyCase]:
    """Yield the cases whose names are chosen, one after the other."""
    random = np.random.default_rng(7)
    for case in _tables():
        if chosen(case.name):
            yield case
    housing = _housing(random)
    if chosen(housing.name):
        yield housing
    for made in (_made(random), _more(np.random.default_rng(8))):
        yield from (case for case in made if chosen(case.name))
