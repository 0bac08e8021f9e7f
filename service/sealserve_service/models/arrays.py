"""Arrays of estimators and steps, checked: those in a file need not be what scikit-learn fitted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights


def array(values: Any, max_size: int) -> NDArray[Any]:
    """Return a number or an array of an estimator as an array.

    NumPy would make an array of any list: of one long text and many short ones, as many long ones.

    Raises:
        ModelTooLargeError: it has too many values.
        ValueError: it is neither a number nor an array.
    """
    if not isinstance(values, np.ndarray | np.generic | float | int):
        raise ValueError(f"a {type(values).__name__} is in the place of an array")
    check_limit("values in one array beside the weights", max_size, np.size(values))
    return np.asarray(values)


def vector(values: Any) -> NDArray[np.float64]:
    """Return a vector of an estimator as floats: see `_floats`."""
    return _floats(values, 1)


def matrix(values: Any) -> NDArray[np.float64]:
    """Return a matrix of an estimator as floats: see `_floats`. A sparse one becomes dense."""
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):  # SciPy's, of any shape
        values = dense(values)
    return _floats(values, 2)


def fitted_width(estimator: Any) -> int:
    """Return the number of features that an estimator was fitted with.

    Raises:
        ModelTooLargeError: they are too many: a file of a few bytes may say any number.
    """
    count = int(estimator.n_features_in_)
    check_limit("features", MAX_FEATURES, count)
    return count


def dense(values: Any) -> NDArray[Any]:
    """Return a sparse matrix of SciPy as an array.

    Raises:
        ModelTooLargeError: it would have too many numbers.
        ValueError: it has indices beyond its shape.
    """
    check_weights(*((1, *values.shape)[-2:]))
    return filled(values)


def filled(values: Any) -> NDArray[Any]:
    """Return an array, or what is in a DataFrame, or a sparse matrix of SciPy with its zeros.

    Raises:
        ValueError: it has indices beyond its shape, which SciPy would write to.
    """
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "columns"):
        return np.asarray(values)
    values.check_format(full_check=True)
    found: NDArray[Any] = values.toarray()
    return found


def _floats(values: Any, dimensions: int) -> NDArray[np.float64]:
    """Return an array of an estimator as floats.

    With other dimensions, sums of two vectors become matrices; and nested lists that refer to each
    other become arrays of any size.

    Raises:
        ModelTooLargeError: it has too many numbers.
        ValueError: it is no array of so many dimensions.
    """
    if not isinstance(values, np.ndarray) or values.ndim != dimensions:
        raise ValueError(f"a {type(values).__name__} is in the place of an array of {dimensions} dimensions")
    check_weights(*((1, *values.shape)[-2:]))
    return values.astype(np.float64)
