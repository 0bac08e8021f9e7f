"""Models of the demo page, trained when it starts: digits, and a decision about made-up loans."""

from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

_SIDE, _MOST_INK = 8, 16
_COPIES = 5
_LOANS = 4_000
_GAPS = 0.08  # of the values of a column
_CATEGORIES = {
    "housing": ("owner", "tenant", "with family"),
    "job": ("employee", "self-employed", "civil servant", "student", "retired"),
}


def saved_models(folder: Path) -> list[str]:
    """Train the models and save them in a folder. Return the options of `sealserve serve`."""
    options = {
        "digits": [("--input-range", "0,16"), ("--input-step", "1")],
        "loans": [("--publish", "steps,structure")],
    }
    with threadpool_limits(1):  # where cores are busy, threads wait for each other
        for name, (estimator, rows) in {"digits": _digits(), "loans": _loans()}.items():
            joblib.dump(estimator, folder / f"{name}.joblib")
            rows.to_csv(folder / f"{name}.csv", index=False, header=name == "loans")
            options[name] += [("--model", f"{folder / name}.joblib"), ("--calibration", f"{folder / name}.csv")]
    return [word for name, pairs in options.items() for flag, value in pairs for word in (flag, f"{name}={value}")]


def _digits() -> tuple[LogisticRegression, pd.DataFrame]:
    """A linear model of digits of 8 x 8 pixels, wider, narrower and more slanted ones, too."""
    X, y = load_digits(return_X_y=True)
    seen, _, labels, _ = train_test_split(X, y, test_size=0.25, random_state=0)
    images = np.vstack([seen, *_distorted(seen.reshape(-1, _SIDE, _SIDE))])
    estimator = LogisticRegression(C=1e-3, tol=1e-2, max_iter=300).fit(images, np.tile(labels, 1 + _COPIES))
    return estimator, pd.DataFrame(seen)


def _distorted(images: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield distorted copies of images (n, 8, 8), of shape (n, 64): people write in many ways."""
    random = np.random.default_rng(0)
    center = np.full(2, (_SIDE - 1) / 2)
    for _ in range(_COPIES):
        copies = []
        for image in images:
            width, slant, shift = np.exp(random.normal(-0.08, 0.15)), random.normal(0, 0.2), random.normal(0, 0.3)
            matrix = np.array([[1, 0], [slant, width]])
            offset = center - matrix @ center + (0, shift)
            copies.append(affine_transform(image, matrix, offset, order=1).round().clip(0, _MOST_INK).ravel())
        yield np.array(copies)


def _loans() -> tuple[HistGradientBoostingClassifier, pd.DataFrame]:
    """Boosted trees for a table of categories and numbers, all with gaps. The data are made up."""
    random = np.random.default_rng(21)
    columns = {name: random.choice(values, _LOANS) for name, values in _CATEGORIES.items()}
    age = random.integers(18, 81, _LOANS)
    income = random.lognormal(8, 0.4, _LOANS).round(-1).clip(0, 10_000)
    loan = random.integers(1, 51, _LOANS) * 1_000
    value = (
        1.6 * np.log(income / 3_000)
        - 0.05 * loan / 1_000
        + 0.02 * (age - 40)
        + 0.8 * (columns["housing"] == "owner")
        + 0.6 * (columns["job"] == "civil servant")
        - 1.2 * (columns["job"] == "student")
        + 1.2
    )
    granted = np.where(value + random.logistic(0, 0.4, _LOANS) > 0, "yes", "no")
    table = pd.DataFrame({**columns, "age": age, "income": income, "loan": loan}).astype(
        {"age": float, "loan": float, "housing": object, "job": object}
    )
    for name in table.columns.drop("loan"):
        table.loc[random.random(_LOANS) < _GAPS, name] = None
    estimator = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, learning_rate=0.2, categorical_features=list(_CATEGORIES), early_stopping=False
    )
    return estimator.fit(table, granted), table
