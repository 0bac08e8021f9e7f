"""The digits of scikit-learn: a classifier, its rows, and the scores that it gives them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Digits:
    """A classifier and rows that it was not fitted on."""

    estimator: LogisticRegression
    X: NDArray[np.float64]
    scores: NDArray[np.float64]


def digits() -> tuple[LogisticRegression, NDArray[np.float64]]:
    """Fit a classifier of the digits, and return it with all rows.

    Rows have 64 features, which are multiples of 1/16 in 0..1.
    """
    X, y = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(X[:1000] / 16, y[:1000]), X / 16
