"""Loading: model files -> linear models.

The suffix of a file tells its format, and each format has a module of its own.
To add a format, write a module with `read_model(content, path) -> LinearModel`, which raises
ModelError, and enter the module in `_FORMATS`.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sealserve_service.models.errors import ModelFileError, ModelTooLargeError, PickleNotTrustedError
from sealserve_service.models.files import read_file
from sealserve_service.models.limits import MAX_MODEL_BYTES
from sealserve_service.models.linear_model import LinearModel


@dataclass(frozen=True)
class _Format:
    """A format of model files.

    Attributes:
        module: of this package, imported on first use: scikit-learn takes 110 MB that a service of
            .npz models can do without.
        suffixes: of its files, lower case.
        runs_code: whether loading a file runs code of its author.
        marks: what its files have one of near their beginning, if others have their suffixes, too.
    """

    module: str
    suffixes: tuple[str, ...]
    runs_code: bool = False
    marks: tuple[bytes, ...] = ()


_FORMATS = (
    _Format("npz_format", (".npz",)),
    _Format("skops_format", (".skops",)),
    _Format("sealmodel_format", (".sealmodel",)),
    _Format("lightgbm_format", (".txt",), marks=(b"tree\n", b"tree\r\n")),
    _Format("boosted_json_format", (".json",), marks=(b'"learner"', b'"features_info"', b'"model_info"')),
    _Format("xgboost_format", (".ubj",)),
    _Format("pickle_format", (".pkl", ".pickle", ".joblib"), runs_code=True),
)

_MARKED_BYTES = 256
_BY_SUFFIX = {suffix: model_format for model_format in _FORMATS for suffix in model_format.suffixes}
MODEL_SUFFIXES = tuple(_BY_SUFFIX)


def _suffixes(*, runs_code: bool) -> str:
    return ", ".join(suffix for suffix, found in _BY_SUFFIX.items() if found.runs_code is runs_code)


SUFFIXES_IN_WORDS = f"{_suffixes(runs_code=False)} and, with --trust-pickle, {_suffixes(runs_code=True)}"
"""The suffixes of all formats, for help and error texts."""


def is_model_file(path: Path) -> bool:
    """Tell whether a file is to be loaded that is in a folder of models.

    A file of a suffix that is not of models alone is, if it begins like a model.

    Raises:
        OSError: the file cannot be read.
    """
    model_format = _BY_SUFFIX.get(path.suffix.lower())
    if model_format is None or not model_format.marks:
        return model_format is not None
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(_MARKED_BYTES)
    return any(mark in beginning for mark in model_format.marks)


def load_model(path: str | Path, *, trust_pickle: bool, sha256: str = "") -> LinearModel:
    """Load the linear model in a file.

    Args:
        path: of the file, in one of the formats.
        trust_pickle: whether to load files that run code of their author.
        sha256: of the file, in lower-case hexadecimal digits; no other content is parsed. "" for
            any.

    Raises:
        ModelFileError: the file is missing, damaged, another than it should be, of an unknown
            format, or holds no estimator.
        PickleNotTrustedError: the file is a pickle, and trust_pickle is false; nothing was
            unpickled.
        ModelTooLargeError: the file or the model passes a limit.
        UnsupportedModelError: the estimator in it is not one that can be served.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} is {'not a file' if path.exists() else 'missing'}; give the file of a model")
    suffix = path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise ModelFileError(f"{path}: the format {suffix!r} is unknown; the known ones are {SUFFIXES_IN_WORDS}")
    try:
        return _read_model(path, _BY_SUFFIX[suffix], trust_pickle, sha256)
    except ModelTooLargeError as error:
        error.path = path
        raise


def _read_model(path: Path, model_format: _Format, trust_pickle: bool, sha256: str) -> LinearModel:
    content = read_file(path, sha256, MAX_MODEL_BYTES)
    if model_format.runs_code and not trust_pickle:
        raise PickleNotTrustedError(
            f"{path} is a pickle, and loading a pickle runs code of whoever wrote it. If you trust its author, pass "
            "--trust-pickle; otherwise have the model saved in a format without code, by `sealserve pack`, "
            "skops.io.dump(model, 'model.skops') or numpy.savez('model.npz', coef=..., intercept=..., classes=...)"
        )
    model: LinearModel = import_module(f"sealserve_service.models.{model_format.module}").read_model(content, path)
    return model
