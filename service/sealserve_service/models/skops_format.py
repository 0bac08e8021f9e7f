"""Skops format: scikit-learn objects without code, made only of types that skops trusts.

What a file holds is bounded before skops reads it: see `skops_archive`.
"""

from functools import partial
from pathlib import Path

from skops import io

from sealserve_service.models.errors import ModelError, ModelFileError
from sealserve_service.models.estimator_files import load_and_fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.open_steps import LEFT_TO_THE_APPLICATION
from sealserve_service.models.skops_archive import TRUSTED_PARTS, check_estimators, checked


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the linear model in a skops file, the content of the file at the path.

    Raises:
        ModelFileError: the content is damaged, holds no estimator, or holds types that skops does
            not trust and that belong to no estimator; they are named.
        ModelTooLargeError: the file or the model passes a limit.
        UnsupportedModelError: the estimator, or one in it, is not one that can be served.
    """
    return load_and_fold(path, partial(_load, content, path))


def _load(content: bytes, path: Path) -> object:
    try:
        archive = checked(content)
        untrusted = set(io.get_untrusted_types(data=archive)) - TRUSTED_PARTS.keys()
        if not untrusted:
            return io.loads(archive, trusted=list(TRUSTED_PARTS))
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # zipfile, json and skops each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable skops file: {type(error).__name__}: {error}") from error
    check_estimators(archive)
    raise ModelFileError(
        f"{path} holds {', '.join(sorted(untrusted))}, which no linear model of scikit-learn needs: save the model "
        "without it, or its weights by numpy.savez('model.npz', coef=..., intercept=..., classes=...). "
        f"{LEFT_TO_THE_APPLICATION}"
    )
