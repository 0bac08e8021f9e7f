"""Npz format: NumPy archives of `coef` and `intercept`, with `classes` for a classifier.

They need no code and no scikit-learn.

    np.savez("model.npz", coef=W, intercept=b, classes=labels)

`coef` has shape (scores, features), or (features,) for one score: a 1-D `coef` without classes
predicts one number a row. `intercept` is one number or one a score. Two classes may share one
score, that of the second. Such models have no probabilities.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve_service.models.errors import ModelFileError
from sealserve_service.models.linear_model import LinearModel

_REQUIRED = {"coef", "intercept"}
_ARRAYS = _REQUIRED | {"classes"}


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the linear model in an archive, the content of the file at the path.

    Raises:
        ModelFileError: the archive is damaged, or its arrays are not those of a linear model.
    """
    arrays = _read_arrays(content, path)
    names = set(arrays)
    if not _REQUIRED <= names <= _ARRAYS:
        raise ModelFileError(f"{path} holds {_listed(names)}; it needs coef and intercept, and may have classes")
    for name in _REQUIRED:
        if arrays[name].dtype.kind not in "iuf":
            raise ModelFileError(f"{path}: {name} holds {arrays[name].dtype} instead of numbers")
    try:
        return _linear_model(arrays["coef"], arrays["intercept"], arrays.get("classes"))
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _linear_model(coef: NDArray[Any], intercept: NDArray[Any], classes: NDArray[Any] | None) -> LinearModel:
    weights = np.atleast_2d(coef)
    score_count = len(weights)
    if classes is None:
        output = Output(Task.REGRESSION, score_count, scalar_target=coef.ndim == 1)
    elif classes.ndim != 1:
        raise ValueError(f"classes have shape {classes.shape} instead of one dimension")
    else:
        output = Output(Task.CLASSIFICATION, score_count, tuple(classes.tolist()))
    return LinearModel(weights, np.repeat(intercept, score_count) if intercept.size == 1 else intercept, output)


def _read_arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    if not content.startswith((b"PK", b"\x93NUMPY")):  # NumPy would take it for a pickle, and advise to allow that
        raise ModelFileError(f"{path} is not a readable .npz archive: write it with numpy.savez")
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ModelFileError(f"{path} is one array, not an archive: write it with numpy.savez")
        return {name: archive[name] for name in archive.files}
    except ModelFileError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable .npz archive: {error}") from error


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
