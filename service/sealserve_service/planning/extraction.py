"""Extraction: how many honest scores determine the weights of a model.

A score is `w phi(x) + b`, whatever encrypts it. Scores of rows whose features, with a constant 1,
are linearly independent are as many equations for w and b, and there are as many such rows as the
rank of the features and the constant. More scores add nothing: w and b are known, but for what no
row shows.
"""

import numpy as np
from numpy.typing import NDArray

from sealserve.he.quantization import InputGrid

_MAX_MEASURED_FEATURES = 1 << 10  # the rank of more takes seconds
_LEAST_SHARE = 1e-12  # of the greatest eigenvalue: less is rounding


def scores_to_copy(grid: InputGrid, features: NDArray[np.float64] | None = None) -> int:
    """Return how many honest scores of a class suffice to copy its weights: a rank.

    The grid tells the greatest rank. A feature of one value adds nothing to the constant. The
    features of an exactly-one group add up to a constant, so that one of them follows from the
    others. What else features have in common, such as equal splits of two trees, only rows show.

    Args:
        grid: of the features.
        features: those of typical rows, (rows, feature_count), if there are some. Their rank counts
            if they are more rows than the greatest rank, and no more than 1,024 features.
    """
    most = 1 + int(np.count_nonzero(grid.levels)) - int(np.count_nonzero(grid.constraints.exactly_one))
    if features is None or len(features) <= most or grid.feature_count > _MAX_MEASURED_FEATURES:
        return most
    width = np.where(grid.levels > 0, grid.maximum - grid.minimum, 1.0)
    rows = np.hstack([(features - grid.minimum) / width, np.ones((len(features), 1))])
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows)
    return min(most, int(np.count_nonzero(eigenvalues > _LEAST_SHARE * eigenvalues[-1])))
