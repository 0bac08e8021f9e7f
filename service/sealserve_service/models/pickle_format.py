"""Pickle format: estimators as pickles, plain or joblib's.

Unpickling runs code of the file's author: it needs the operator's consent, which the caller checks.
"""

import io
from functools import partial
from pathlib import Path

import joblib

from sealserve_service.models.errors import ModelFileError
from sealserve_service.models.estimator_files import load_and_fold
from sealserve_service.models.linear_model import LinearModel


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the linear model in a pickle, the content of the file at the path.

    Raises:
        ModelFileError: the pickle is damaged, needs a module that is not installed, or holds no
            estimator.
        UnsupportedModelError: the estimator is not one that can be served.
    """
    return load_and_fold(path, partial(_unpickle, content, path))


def _unpickle(content: bytes, path: Path) -> object:
    try:
        return joblib.load(io.BytesIO(content))  # reads plain pickles too
    except MemoryError:
        raise
    except ImportError as error:
        raise ModelFileError(f"{path} needs a module that is not installed, or not in this version: {error}") from error
    except AttributeError as error:
        what = str(error).partition(" on <module")[0]
        raise ModelFileError(
            f"{path} needs something that a module does not have in this version ({what}): load it with the version "
            "that saved it, and save what the scores need by numpy.savez('model.npz', coef=model.coef_, "
            "intercept=model.intercept_, classes=model.classes_)"
        ) from error
    except Exception as error:  # a pickle can raise anything
        raise ModelFileError(f"{path} is not a readable pickle: {type(error).__name__}: {error}") from error
