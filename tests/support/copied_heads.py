"""Copies of a private head, by least squares on features and honest scores."""

import numpy as np
from numpy.typing import NDArray

DAMPING = 1e-6  # of squared features: fewer scores than features leave some weights undetermined


def copied_head(features: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights, and the intercept last, that give features (rows, features) these scores.

    Features and a constant have some rank. So many scores of rows that reach all of it determine
    the weights. Of fewer scores the smallest weights are taken.
    """
    rows = np.hstack([features, np.ones((len(features), 1))])
    if len(rows) < rows.shape[1]:
        found = rows.T @ np.linalg.solve(rows @ rows.T + DAMPING * np.eye(len(rows)), scores)
    else:
        products = rows.T @ rows
        found = np.linalg.solve(products + DAMPING * np.eye(len(products)), rows.T @ scores)
    return np.asarray(found, np.float64)
