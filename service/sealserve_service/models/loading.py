"""Model files to linear models: the extension tells the format, one module a format."""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sealserve_service.models.errors import ModelFileError, UnsupportedModelError
from sealserve_service.models.linear_model import LinearModel

_LOGGER = logging.getLogger(__name__)

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
MODEL_SUFFIXES = (".npz", ".skops", *_PICKLE_SUFFIXES)


def load_model(path: str | Path, *, trust_pickle: bool, sha256: str = "") -> LinearModel:
    """The linear model in a file: .npz, .skops or, with trust_pickle, .pkl, .pickle or .joblib.

    With `sha256`, lower-case hexadecimal digits, no other content is looked at.

    Raises:
        ModelFileError: the file is missing, damaged, another than it should be, of an unknown format, or holds no
            estimator.
        PickleNotTrustedError: the file is a pickle, and trust_pickle is false.
        UnsupportedModelError: the estimator in it is not one that can be served.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} is {'not a file' if path.exists() else 'missing'}; give the file of a model")
    suffix = path.suffix.lower()
    if suffix not in MODEL_SUFFIXES:
        raise ModelFileError(
            f"{path}: the format {suffix!r} is unknown; the known ones are .npz, .skops and, with --trust-pickle, "
            f"{', '.join(_PICKLE_SUFFIXES)}"
        )
    content = _read(path, sha256)
    if suffix == ".npz":
        from sealserve_service.models.npz_format import read_npz

        return read_npz(content, path)
    return _load_estimator(content, path, trust_pickle=trust_pickle)


def _read(path: Path, sha256: str) -> bytes:
    """Read a file once: what is parsed is what was checked, whoever writes to the file meanwhile."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise ModelFileError(f"{path} is not the file it should be: its SHA-256 is {found}, not {sha256}")
    return content


def _load_estimator(content: bytes, path: Path, *, trust_pickle: bool) -> LinearModel:
    # Imported here, for scikit-learn takes 110 MB that a service of .npz models can do without.
    from sklearn.base import BaseEstimator

    from sealserve_service.models.folding import fold
    from sealserve_service.models.pickle_format import read_pickle
    from sealserve_service.models.skops_format import read_skops

    with _version_warnings_logged(path):
        if path.suffix.lower() == ".skops":
            estimator = read_skops(content, path)
        else:
            estimator = read_pickle(content, path, trust_pickle=trust_pickle)
    if not isinstance(estimator, BaseEstimator):
        raise ModelFileError(f"{path} holds a {type(estimator).__name__}, not a scikit-learn estimator")
    try:
        return fold(estimator)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error


@contextmanager
def _version_warnings_logged(path: Path) -> Iterator[None]:
    """Put scikit-learn's warnings about versions, of which each step of a model gives one, on one line of the log."""
    from sklearn.exceptions import InconsistentVersionWarning

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
        _LOGGER.warning("%s was trained with scikit-learn %s and is served with %s", path, trained, installed)
