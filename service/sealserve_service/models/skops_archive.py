"""Skops archive: the sizes of what a .skops file holds, checked before skops reads it.

A .skops file is an archive of arrays and of `schema.json`, which describes the objects that are
made of them. Any object may refer to another one, or to an array, any number of times. So sizes are
those of the description after each reference has been replaced by what it refers to: no
conversion of the objects, to an array or to text, takes more.
"""

import io
import json
from collections import defaultdict
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sealserve.protocol.text import printable
from sealserve.row_files.npy import MAGIC, read_array
from sealserve_service.models.archives import open_archive, read_member
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import SUPPORTED, SUPPORTED_CLASSES
from sealserve_service.models.limits import (
    MAX_MODEL_BYTES,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_VALUES,
    check_limit,
)
from sealserve_service.models.transformers import REFUSED_STEPS

_SCHEMA = "schema.json"
_BYTES_A_VALUE = 8
_BYTES_A_CHARACTER = 4  # in NumPy's arrays of texts
_LOADERS = frozenset(
    (
        "BytearrayNode",
        "BytesNode",
        "CachedNode",
        "DTypeNode",
        "DefaultDictNode",
        "DictNode",
        "FunctionNode",
        "JsonNode",
        "ListNode",
        "LossNode",
        "MaskedArrayNode",
        "NdArrayNode",
        "ObjectNode",
        "RandomStateNode",
        "SetNode",
        "SliceNode",
        "SparseMatrixNode",
        "TupleNode",
        "TypeNode",
        # Of types that skops never trusts, and names:
        "ConstructorFromReduceNode",
        "MethodNode",
        "OperatorFuncNode",
        "PartialNode",
    )
)
"""What skops may make an object with. A random generator, for one, takes any memory it is told."""
_ALLOCATING = {("numpy", "void"), ("numpy", "bytes_"), ("builtins", "bytes"), ("builtins", "bytearray")}
"""Types that make so many bytes of a number."""

_MODULES_OF_VALUES = {"numpy", "scipy", "builtins", "collections"}
TRUSTED_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("numpy.bool", "numpy.bool_"), ("NdArrayNode", "TypeNode")),
    "numpy.dtype": ("DTypeNode",),
    # NumPy's types that have no values: columns are selected by them.
    **dict.fromkeys(
        (
            "numpy.floating",
            "numpy.generic",
            "numpy.inexact",
            "numpy.integer",
            "numpy.number",
            "numpy.signedinteger",
            "numpy.unsignedinteger",
        ),
        ("TypeNode",),
    ),
    "scipy.sparse._csr.csr_matrix": ("SparseMatrixNode",),
    **dict.fromkeys(
        (
            "scipy._lib.array_api_compat.numpy._aliases.asarray",  # of a BSpline
            "sklearn.feature_selection._univariate_selection.chi2",
            "sklearn.feature_selection._univariate_selection.f_classif",
            "sklearn.feature_selection._univariate_selection.f_regression",
            "sklearn.feature_selection._univariate_selection.r_regression",
        ),
        ("FunctionNode",),
    ),
    **dict.fromkeys(
        (
            "scipy.interpolate._bsplines.BSpline",
            "sklearn._loss.loss.HalfTweedieLoss",
            "sklearn._loss.loss.HalfTweedieLossIdentity",
            "sklearn.calibration._CalibratedClassifier",
            "sklearn.calibration._SigmoidCalibration",
            "sklearn.calibration._TemperatureScaling",
            "sklearn.compose._column_transformer.make_column_selector",
            "sklearn.metrics._scorer._PassthroughScorer",
            "sklearn.model_selection._split.KFold",
            "sklearn.model_selection._split.StratifiedKFold",
            "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
            "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        ),
        ("ObjectNode",),
    ),
}
"""Parts of supported estimators that skops does not trust -> what skops may make them with.

An ObjectNode sets attributes, and a FunctionNode looks a function up: neither calls anything. Other
nodes would call what a file names, with arguments of the file, once its name is trusted.
"""
_REFUSED = {kind.__name__ for kind in REFUSED_STEPS}  # with an error that says why
_KNOWN = (
    SUPPORTED_CLASSES
    | _REFUSED
    | {"LabelBinarizer", "LabelEncoder", *(name.rpartition(".")[2] for name in TRUSTED_PARTS)}
)
_COMPILED_TREES = ("sklearn.tree._tree", "sklearn.ensemble._hist_gradient_boosting")
_ARCHIVE = b"PK"
"""The bytes with which a member begins that is an archive itself: a sparse matrix."""
_OF_SPARSE = {"data.npy", "format.npy", "indices.npy", "indptr.npy", "shape.npy"}


class _Size(NamedTuple):
    values: int
    bytes: int


def checked(content: bytes) -> bytes:
    """Check the sizes of an archive, and return it with its members uncompressed.

    What skops reads is what was checked here, whatever the directory of the given one says.

    Raises:
        ModelTooLargeError: it passes a limit.
        UnsupportedModelError: it describes an object that no linear model needs, and whose size
            cannot be told.
        Exception: it is damaged; zipfile, zlib, json and NumPy each have their own.
    """
    with open_archive(content) as archive:
        check_limit("bytes of schema.json", MAX_SCHEMA_BYTES, archive.getinfo(_SCHEMA).file_size)
        schema = read_member(archive, _SCHEMA)
        separators = sum(map(schema.count, (b",", b"[", b"{")))
        check_limit("values in schema.json", MAX_SCHEMA_VALUES, separators)
        description = json.loads(schema)
        _check_inner_archives(archive)
        copy, sizes = io.BytesIO(), dict[str, int]()
        with ZipFile(copy, "w", ZIP_STORED) as uncompressed:
            uncompressed.writestr(_SCHEMA, schema)
            for name in archive.namelist():
                if name != _SCHEMA:
                    data, sizes[name] = _checked_member(read_member(archive, name))
                    uncompressed.writestr(name, data)
    try:
        described = _Sizes(description, sizes)
    except UnsupportedModelError:
        _check_estimators(description)  # which names what holds the object
        raise
    size = described.of(description)
    check_limit("values in schema.json", MAX_SCHEMA_VALUES, size.values)
    check_limit("bytes", MAX_MODEL_BYTES, size.bytes)
    return copy.getvalue()


def check_estimators(archive: bytes) -> None:
    """Check that an archive's estimators are of supported classes.

    Raises:
        UnsupportedModelError: one is not; it is named.
    """
    with ZipFile(io.BytesIO(archive)) as members:
        _check_estimators(json.loads(members.read(_SCHEMA)))


def _check_estimators(description: Any) -> None:
    parts = [description]
    while parts:  # an estimator comes before its parts
        part = parts.pop()
        if isinstance(part, dict):
            module, name = str(part.get("__module__")), str(part.get("__class__"))
            if module.startswith(_COMPILED_TREES):
                raise UnsupportedModelError(
                    "it holds trees, which are compiled objects that skops does not trust: save the model by "
                    "joblib.dump(model, 'model.joblib') and, if you trust its author, make a file without code of it "
                    "by `sealserve pack model.joblib --trust-pickle`, or serve it with --trust-pickle"
                )
            is_value = module.partition(".")[0] in _MODULES_OF_VALUES
            if part.get("__loader__") == "ObjectNode" and not is_value and name not in _KNOWN:
                raise UnsupportedModelError(f"{printable(name)} is not linear, or not scikit-learn's own. {SUPPORTED}")
            part = list(part.values())
        if isinstance(part, list):
            parts.extend(reversed(part))


def _check_inner_archives(archive: ZipFile) -> None:
    """Check how large the members of members are together, before any of them is uncompressed.

    Raises:
        ModelTooLargeError: they are too large.
    """
    bytes_left = MAX_MODEL_BYTES - sum(entry.file_size for entry in archive.infolist())
    for name in archive.namelist():
        with archive.open(name) as member:
            is_archive = member.read(len(_ARCHIVE)) == _ARCHIVE
        if is_archive:
            with open_archive(read_member(archive, name), bytes_left) as inner:
                bytes_left -= sum(entry.file_size for entry in inner.infolist())


def _checked_member(data: bytes) -> tuple[bytes, int]:
    """Return a member, its own members uncompressed, and the bytes of its arrays or its own."""
    if data.startswith(MAGIC):
        return data, full_bytes(read_array(data))
    if not data.startswith(_ARCHIVE):
        return data, len(data)
    copy, arrays = io.BytesIO(), dict[str, NDArray[Any]]()
    with open_archive(data) as inner, ZipFile(copy, "w", ZIP_STORED) as uncompressed:
        for name in inner.namelist():
            array = read_member(inner, name)
            arrays[name] = read_array(array)
            uncompressed.writestr(name, array)
    _check_sparse(arrays)
    return copy.getvalue(), sum(map(full_bytes, arrays.values()))


def _check_sparse(arrays: dict[str, NDArray[Any]]) -> None:
    """Check the arrays of a sparse matrix: SciPy reads and writes wherever its indices say.

    Raises:
        ValueError: they are not those of a CSR matrix, or indices are beyond its shape.
    """
    if not _OF_SPARSE <= arrays.keys() <= _OF_SPARSE | {"_is_array.npy"} or arrays["format.npy"].item() != b"csr":
        raise ValueError("it holds an archive that is no sparse matrix by rows")
    parts = (arrays["data.npy"], arrays["indices.npy"], arrays["indptr.npy"])
    csr_matrix(parts, shape=tuple(arrays["shape.npy"].tolist())).check_format(full_check=True)


def full_bytes(array: NDArray[Any]) -> int:
    """Return the bytes of an array, where a value counts as 8 at least, as in float64."""
    return array.size * max(8, array.itemsize)


class _Sizes:
    """The sizes of descriptions in which each reference stands for what it refers to.

    skops takes the first object that has an id for all that have it; here the largest counts.

    Args:
        description: with all the definitions that references refer to.
        members: the bytes of each member of the archive.
    """

    def __init__(self, description: Any, members: dict[str, int]) -> None:
        self._members = members
        self._definitions = defaultdict[int, list[dict[str, Any]]](list)
        self._known: dict[int, _Size | None] = {}
        self._collect(description)

    def _collect(self, description: Any) -> None:
        if isinstance(description, dict):
            _check_type(description)
            object_id = description.get("__id__")
            if type(object_id) is int:
                self._definitions[object_id].append(description)
            elif object_id is not None:
                raise ValueError("the id of an object is no integer")
            description = description.values()
        elif not isinstance(description, list):
            return
        for part in description:
            self._collect(part)

    def of(self, description: Any) -> _Size:
        """Return the size of a description.

        Raises:
            ValueError: an object refers to itself.
        """
        object_id = description.get("__id__") if isinstance(description, dict) else None
        if object_id is None:
            return self._own(description)
        if object_id not in self._known:
            self._known[object_id] = None
            sizes = [self._own(definition) for definition in self._definitions[object_id]]
            self._known[object_id] = _Size(max(size.values for size in sizes), max(size.bytes for size in sizes))
        known = self._known[object_id]
        if known is None:
            raise ValueError("an object refers to itself")
        return known

    def _own(self, description: Any) -> _Size:
        if isinstance(description, str):
            return _Size(1, _BYTES_A_CHARACTER * len(description))
        if not isinstance(description, dict | list):
            return _Size(1, _BYTES_A_VALUE)
        parts = description.values() if isinstance(description, dict) else description
        values, byte_count = 1, _BYTES_A_VALUE
        for part in parts:
            size = self.of(part)
            values, byte_count = values + size.values, byte_count + size.bytes
        if isinstance(description, dict):
            byte_count += _BYTES_A_CHARACTER * sum(map(len, description))
            if isinstance(name := description.get("file"), str):
                byte_count += self._members.get(name, 0)
        return _Size(values, byte_count)


def _check_type(description: dict[str, Any]) -> None:
    loader, kind = (
        description.get("__loader__", "CachedNode"),
        (description.get("__module__"), description.get("__class__")),
    )
    if loader not in _LOADERS or (kind in _ALLOCATING and loader not in ("BytesNode", "BytearrayNode")):
        raise UnsupportedModelError(f"it holds a {kind[0]}.{kind[1]}, which no linear model needs")
    if loader not in (*TRUSTED_PARTS.get(f"{kind[0]}.{kind[1]}", (loader,)), "CachedNode"):
        raise UnsupportedModelError(f"it makes a {kind[0]}.{kind[1]} in a way in which skops never saves one")
