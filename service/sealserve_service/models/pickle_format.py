"""Models as pickles, plain or joblib's. Unpickling runs code of the file's author: only with the operator's consent."""

import io
from pathlib import Path

import joblib

from sealserve_service.models.errors import ModelFileError, PickleNotTrustedError


def read_pickle(content: bytes, path: Path, *, trust_pickle: bool) -> object:
    """The object in a pickle, the content of the file at the path.

    Raises:
        PickleNotTrustedError: trust_pickle is false; nothing was unpickled.
        ModelFileError: the pickle is damaged, or needs a module that is not installed.
    """
    if not trust_pickle:
        raise PickleNotTrustedError(
            f"{path} is a pickle, and loading a pickle runs code of whoever wrote it. If you trust its author, pass "
            "--trust-pickle; otherwise have the model saved in a format without code, by skops.io.dump(model, "
            "'model.skops') or numpy.savez('model.npz', coef=..., intercept=..., classes=...)"
        )
    try:
        return joblib.load(io.BytesIO(content))  # reads plain pickles too
    except ImportError as error:
        raise ModelFileError(f"{path} needs a module that is not installed, or not in this version: {error}") from error
    except Exception as error:  # a pickle can raise whatever it likes
        raise ModelFileError(f"{path} is not a readable pickle: {type(error).__name__}: {error}") from error
