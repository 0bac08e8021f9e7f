"""Estimators that were saved in a file: loaded, checked and folded into linear models."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from sealserve_service.models.boosted_estimators import boosted_rule
from sealserve_service.models.errors import ModelFileError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel

_logger = logging.getLogger(__name__)


def load_and_fold(path: Path, load: Callable[[], object]) -> LinearModel:
    """Return the linear model that the estimator in a file is.

    Args:
        path: of the file, for error messages and the log.
        load: returns the object in the file.

    Raises:
        ModelFileError: the object is no estimator, or `load` raises the error.
        ModelTooLargeError: the estimator passes a limit, or `load` raises the error.
        UnsupportedModelError: the estimator is not one that can be served.
    """
    try:
        with _log_version_warnings(path):
            estimator = load()
        if not isinstance(estimator, BaseEstimator) and boosted_rule(estimator) is None:
            raise ModelFileError(f"{path} holds a {type(estimator).__name__}, not a scikit-learn estimator")
        return fold(estimator)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error


@contextmanager
def _log_version_warnings(path: Path) -> Iterator[None]:
    """Log scikit-learn's warnings about versions, one for each step of a model, as one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        yield
    versions = set()
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            versions.add((warning.message.original_sklearn_version, warning.message.current_sklearn_version))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for trained, installed in sorted(versions):
        _logger.warning("%s was trained with scikit-learn %s and is served with %s", path, trained, installed)
