"""Npz format: NumPy archives of `coef` and `intercept`, with `classes` for a classifier.

They need no code and no scikit-learn. What they hold is bounded by `models.limits`.

    np.savez("model.npz", coef=W, intercept=b, classes=labels)

`coef` has shape (scores, features), or (features,) for one score: a 1-D `coef` without classes
predicts one number a row. `intercept` is one number or one a score. Two classes may share one
score, that of the second. Such models have no probabilities.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve.row_files.npy import MAGIC, read_array
from sealserve_service.models.archives import open_archive, read_member
from sealserve_service.models.errors import ModelError, ModelFileError
from sealserve_service.models.limits import MAX_SCORES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel

_REQUIRED = {"coef", "intercept"}
_ARRAYS = _REQUIRED | {"classes"}
_MOST_LISTED = 10


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the linear model in an archive, the content of the file at the path.

    Raises:
        ModelFileError: the archive is damaged, or its arrays are not those of a linear model.
        ModelTooLargeError: the archive or the model passes a limit.
    """
    arrays = _read_arrays(content, path)
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
    check_weights(score_count, weights.size // max(1, score_count))
    if classes is None:
        output = Output(Task.REGRESSION, score_count, scalar_target=coef.ndim == 1)
    elif classes.ndim != 1:
        raise ValueError(f"classes have shape {classes.shape} instead of one dimension")
    else:
        check_limit("classes", MAX_SCORES, classes.size)  # as Python's values they take far more memory
        output = Output(Task.CLASSIFICATION, score_count, tuple(classes.tolist()))
    return LinearModel(weights, np.repeat(intercept, score_count) if intercept.size == 1 else intercept, output)


def _read_arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    if content.startswith(MAGIC):
        raise ModelFileError(f"{path} is one array, not an archive: write it with numpy.savez")
    try:
        with open_archive(content) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if not _REQUIRED <= members.keys() <= _ARRAYS or len(members) < len(archive.namelist()):
                listed = ", ".join(sorted(archive.namelist())[:_MOST_LISTED]).replace(".npy", "") or "nothing"
                raise ModelFileError(f"{path} holds {listed}; it needs coef and intercept, and may have classes")
            return {name: read_array(read_member(archive, member)) for name, member in members.items()}
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable .npz archive: {error}") from error
