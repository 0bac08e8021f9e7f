"""Small model files that ask for much memory.

Files of these formats need no trust: nothing in them is code. Their size needs none either. Each
bomb here takes more than the room that it gets when it is loaded as before there were limits, and
is refused by the service within a tenth of it.
"""

import io
import itertools
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import skops.io
from numpy.lib import format as npy
from scipy.sparse import csr_matrix, save_npz
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sealserve_service.models.errors import ModelTooLargeError
from sealserve_service.models.skops_archive import checked
from tests.support.serving import HANG_SECONDS, ROOT

ROOM = 200 << 20
ZEROS = 600 << 20
"""Bytes of zeros: more than a model may have."""

Members = dict[str, bytes]


class Loaded(NamedTuple):
    """How the loading of a model ended, and by how many bytes its process grew."""

    outcome: str
    grown: int


def load(paths: Iterable[Path]) -> dict[tuple[str, bool], Loaded]:
    """Load models, without and with limits; return what became of each (path, whether limited)."""
    command = [sys.executable, "-m", "tests.support.limited_loading", str(ROOM), *map(str, paths)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * HANG_SECONDS, check=True)
    lines = map(json.loads, result.stdout.splitlines())
    return {(path, are_limited): Loaded(outcome, grown) for path, are_limited, outcome, grown in lines}


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue()


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def write(path: Path, members: Members, zeros_after: str = "", said_bytes: int | None = None) -> Path:
    """Write an archive.

    Args:
        path: of the file.
        members: of the archive.
        zeros_after: the member that is followed by ZEROS.
        said_bytes: what the directory says of that member's size; by default the truth.
    """
    local, directory = b"", b""
    for name, data in members.items():
        compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
        deflated, size = compressor.compress(data), len(data)
        if name == zeros_after:
            deflated += compressor.flush(zlib.Z_FULL_FLUSH) + ZERO_BLOCK * (ZEROS >> 20)
            size = size + ZEROS if said_bytes is None else said_bytes
        deflated += compressor.flush()
        facts = 20, 0, 8, 0, 0, zlib.crc32(data), len(deflated), size, len(name), 0
        directory += struct.pack("<4sH5H3I2H", b"PK\x01\x02", 20, *facts)
        directory += struct.pack("<3H2I", 0, 0, 0, 0, len(local)) + name.encode()
        local += struct.pack("<4s5H3I2H", b"PK\x03\x04", *facts) + name.encode() + deflated
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(local), 0)
    path.write_bytes(local + directory + end)
    return path


def zero_block() -> bytes:
    """Return a megabyte of zeros, deflated, which may follow itself."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    compressor.compress(b"")
    return compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)


ZERO_BLOCK = zero_block()

# Archives of arrays


SMALL = {"coef.npy": array([1.0, 2.0]), "intercept.npy": array(0.5)}


def npz_of_zeros(path: Path) -> Path:
    return write(path / "m.npz", SMALL | {"coef.npy": header((ZEROS // 8,), "<f8")}, zeros_after="coef.npy")


def npz_of_numbers_that_are_not_there(path: Path) -> Path:
    return write(path / "m.npz", SMALL | {"coef.npy": header((1 << 40,), "<f8")})


def npz_of_empty_texts(path: Path) -> Path:
    return write(path / "m.npz", SMALL | {"classes.npy": header((1 << 30,), "<U0")})


def npz_of_many_labels(path: Path) -> Path:
    """Each label takes two bytes in the file, and 56 as one of Python's values."""
    labels = header((16 << 20,), "|S2") + b"ab" * (16 << 20)
    return write(path / "m.npz", SMALL | {"classes.npy": labels})


# Trees


def json_of_empty_lists(path: Path) -> Path:
    (path / "m.json").write_bytes(b"[[]" + b",[]" * (10 << 20) + b"]")
    return path / "m.json"


def ubj_of_empty_lists(path: Path) -> Path:
    (path / "m.ubj").write_bytes(b"[" + b"[]" * (10 << 20) + b"]")
    return path / "m.ubj"


def text_of_words(path: Path) -> Path:
    words = b"tree\nversion=v4\nmax_feature_idx=0\nfeature_names=a\nnum_tree_per_iteration=1\n"
    words += b"Tree=0\nnum_leaves=9\nleaf_value=" + b"10 " * (10 << 20) + b"\nend of trees\n"
    (path / "m.txt").write_bytes(words)
    return path / "m.txt"


def text_of_sets_of_categories(path: Path) -> Path:
    """Of a word of ten digits come 32 categories."""
    words = b"tree\nversion=v4\nmax_feature_idx=0\nfeature_names=a\nnum_tree_per_iteration=1\nTree=0\nnum_leaves=2\n"
    words += b"split_feature=0\nthreshold=0\ndecision_type=1\nleft_child=-1\nright_child=-2\nleaf_value=0 1\n"
    words += b"num_cat=1\ncat_boundaries=0 1048576\ncat_threshold=" + b"4294967295 " * (1 << 20) + b"\nend of trees\n"
    (path / "m.txt").write_bytes(words)
    return path / "m.txt"


# Packed models


def packed_members() -> Members:
    """The members of an honest packed model, without those that a bomb replaces."""
    output = {"task": "regression", "score_count": 1}
    description: dict[str, Any] = {
        "output": output,
        "column_names": [],
        "columns": [],
        "publications": [],
        "exactly_one": [],
    }
    description |= {"outside_share": 0.0, "max_score_error": None, "judgements": {}}
    numbers = {"weights": np.ones((1, 2)), "intercept": np.zeros(1), "is_declared": np.zeros(2, np.bool_)}
    numbers |= {name: np.zeros(2) for name in ("minimum", "own_step", "center")} | {"maximum": np.ones(2)}
    members = {"version": b"sealmodel 1\n", "description.json": json.dumps(description).encode()}
    return members | {f"{name}.npy": array(values) for name, values in numbers.items()}


def sealmodel_of_zeros(path: Path) -> Path:
    members = packed_members() | {"weights.npy": header((1, ZEROS // 8), "<f8")}
    return write(path / "m.sealmodel", members, zeros_after="weights.npy")


def sealmodel_of_a_description_that_lies(path: Path) -> Path:
    """Of such a member, zipfile inflates all and then cuts it."""
    return write(path / "m.sealmodel", packed_members(), zeros_after="description.json", said_bytes=2)


def sealmodel_of_numbers_that_are_not_there(path: Path) -> Path:
    return stored(path / "m.sealmodel", packed_members() | {"weights.npy": header((1, 1 << 40), "<f8")})


def sealmodel_of_many_values(path: Path) -> Path:
    """Each list takes three bytes in the file, and 56 as one of Python's values."""
    text = b'{"judgements": [' + b"[]," * (8 << 20) + b"[]]}"
    return stored(path / "m.sealmodel", packed_members() | {"description.json": text})


def stored(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# Archives of objects


def parts(estimator: Any) -> tuple[dict[str, Any], Members]:
    """Return the description of an estimator, and the members of its archive."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members.pop("schema.json"))
    # As ids skops writes addresses; some of them stand for several objects in a description that
    # is put together.
    return description, members


def attributes(description: dict[str, Any]) -> dict[str, Any]:
    """Return what an object's description says of its attributes."""
    found: dict[str, Any] = description["content"]["content"]
    return found


def write_skops(path: Path, description: Any, members: Members, **options: Any) -> Path:
    return write(path / "m.skops", {"schema.json": json.dumps(description).encode()} | members, **options)


def fitted() -> LogisticRegression:
    return LogisticRegression(max_iter=20).fit([[0.0], [1.0]], [0, 1])


def skops_of_zeros(path: Path) -> Path:
    description, members = parts(fitted())
    name = attributes(description)["coef_"]["file"]
    members[name] = header((1, ZEROS // 8), "<f8")
    return write_skops(path, description, members, zeros_after=name)


def skops_of_a_schema_that_lies(path: Path) -> Path:
    """Of such a member, zipfile inflates all and then cuts it."""
    _, members = parts(fitted())
    return write(path / "m.skops", {"schema.json": b"{}"} | members, "schema.json", said_bytes=2)


def skops_of_one_array_again_and_again(path: Path) -> Path:
    description, members = parts(fitted())
    template = attributes(description)["coef_"]
    members[template["file"]] = array(np.zeros(1 << 19))
    arrays = [{name: value for name, value in template.items() if name != "__id__"}] * 200
    attributes(description)["more"] = a_list(arrays)
    return write_skops(path, description, members)


def a_list(content: list[Any], **more: Any) -> dict[str, Any]:
    return {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": content, **more}


def a_tuple(content: list[Any]) -> dict[str, Any]:
    return {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": content}


def reference(object_id: object) -> dict[str, Any]:
    return {"__class__": "list", "__module__": "builtins", "__loader__": "CachedNode", "__id__": object_id}


def laughs(object_ids: list[Any], count: int) -> dict[str, Any]:
    """Describe a list of lists of lists, in which all but the first are references."""
    one = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "1"}
    level = a_list([one] * count, __id__=object_ids[0])
    for before, object_id in itertools.pairwise(object_ids):
        level = a_list([level, *[reference(before)] * (count - 1)], __id__=object_id)
    return level


def of_objects(nested: dict[str, Any], dimensions: int) -> dict[str, Any]:
    """Describe an array of objects, which skops makes of lists."""
    number = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "1"}
    shape = a_tuple([number] * dimensions)
    kind = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "json"}
    return {**kind, "content": [nested], "shape": shape}


def skops_of_lists_of_lists(path: Path) -> Path:
    description, members = parts(fitted())
    attributes(description)["classes_"] = of_objects(laughs([1, 2, 3], 320), 4)
    return write_skops(path, description, members)


def skops_of_a_product_of_vectors(path: Path) -> Path:
    """A component of many features, and many classes of one component."""
    pca, model = PCA(1).fit(np.eye(3)), LinearRegression().fit([[0.0], [1.0]], [[0.0, 1.0], [1.0, 0.0]])
    pca.components_, pca.mean_ = np.ones((1, 1 << 14)), np.zeros(1 << 14)
    model.coef_, model.intercept_ = np.ones((1 << 13, 1)), np.zeros(1 << 13)
    return write_skops(path, *parts(make_pipeline(pca, model)))


def skops_of_a_sum_of_vectors(path: Path) -> Path:
    """A column and a row make a matrix."""
    scaler = StandardScaler().fit(np.eye(3))
    scaler.mean_, scaler.scale_ = np.ones((1 << 14, 1)), np.ones(1 << 14)
    return write_skops(path, *parts(make_pipeline(scaler, LinearRegression().fit(np.eye(3), [0.0, 1.0, 2.0]))))


def skops_of_a_number_of_features(path: Path) -> Path:
    scaler = StandardScaler(with_mean=False, with_std=False).fit(np.eye(3))
    scaler.n_features_in_ = 1 << 30
    return write_skops(path, *parts(make_pipeline(scaler, LinearRegression().fit(np.eye(3), [0.0, 1.0, 2.0]))))


def skops_of_models_that_share_a_step(path: Path) -> Path:
    """Each of many models folds one step into weights of its own."""
    pca = PCA(1).fit(np.eye(3))
    pca.components_, pca.mean_ = np.ones((1, 1 << 18)), np.zeros(1 << 18)
    member = make_pipeline(pca, LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
    model = MultiOutputRegressor(LinearRegression()).fit(np.eye(3), np.eye(3))
    model.estimators_ = [member]
    description, members = parts(model)
    attributes(description)["estimators_"]["content"] *= 300
    return write_skops(path, description, members)


def skops_of_a_number_of_bytes(path: Path) -> Path:
    description, members = parts(fitted())
    attributes(description)["n_iter_"]["__class__"] = "void"
    members[attributes(description)["n_iter_"]["file"]] = array(np.array(1 << 30))
    return write_skops(path, description, members)


def skops_of_a_random_pool(path: Path) -> Path:
    model = fitted()
    model.random_state = np.random.default_rng(0)
    description, members = parts(model)
    state = attributes(description)["random_state"]["content"]["seed_seq"]["content"]
    state["pool_size"]["content"] = str(1 << 30)
    return write_skops(path, description, members)


def skops_of_archives_in_an_archive(path: Path) -> Path:
    """A sparse matrix is an archive itself, and a model may have any number of them."""
    model = fitted().sparsify()
    description, members = parts(model)
    template = {name: value for name, value in attributes(description)["coef_"].items() if name != "__id__"}
    del members[template["file"]]
    count = 8 << 20
    zeros = csr_matrix((np.zeros(count), np.zeros(count, np.int32), [0, count]), shape=(1, 1))
    file = io.BytesIO()
    save_npz(file, zeros)
    names = [f"{number}.npz" for number in range(6)]
    attributes(description)["verbose"] = a_list([template | {"file": name} for name in names])
    attributes(description)["coef_"] = template | {"file": names[0]}
    return write_skops(path, description, members | dict.fromkeys(names, file.getvalue()))


def skops_of_a_call(path: Path) -> Path:
    """A class that is trusted as a part is called with a shape: the matrix has a number a row."""
    description, members = parts(fitted())
    value = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}
    shape = a_tuple([value | {"content": str(1 << 30)}, value | {"content": "1"}])
    attributes(description)["verbose"] = {
        "__class__": "csr_matrix",
        "__module__": "scipy.sparse._csr",
        "__loader__": "ConstructorFromReduceNode",
        "content": a_tuple([shape]),
    }
    return write_skops(path, description, members)


_KINDS = ("npz_of", "sealmodel_of", "skops_of", "json_of", "ubj_of", "text_of")
BOMBS = {name: bomb for name, bomb in globals().items() if name.startswith(_KINDS)}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: bomb(tmp_path_factory.mktemp(name)) for name, bomb in BOMBS.items()}


@pytest.fixture(scope="module")
def honest_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path, X = tmp_path_factory.mktemp("honest"), np.random.default_rng(0).normal(size=(300, 20))
    np.savez_compressed(path / "a.npz", coef=np.ones((10, 784)), intercept=np.zeros(10), classes=np.arange(10))
    members = MultiOutputRegressor(make_pipeline(StandardScaler(), PCA(3), LinearRegression())).fit(X, X)
    for name, model in {"b": fitted(), "c": members}.items():
        skops.io.dump(model, path / f"{name}.skops", compression=zipfile.ZIP_DEFLATED)
    return [path / "a.npz", path / "b.skops", path / "c.skops", stored(path / "d.sealmodel", packed_members())]


@pytest.fixture(scope="module")
def loaded(bombs: dict[str, Path], honest_files: list[Path]) -> dict[tuple[str, bool], Loaded]:
    return load([*bombs.values(), *honest_files])


@pytest.mark.slow  # a dozen seconds
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(
    name: str, bombs: dict[str, Path], loaded: dict[tuple[str, bool], Loaded]
) -> None:
    path = bombs[name]
    assert path.stat().st_size < ROOM / 2
    assert loaded[str(path), False].outcome == "MemoryError"
    limited = loaded[str(path), True]
    assert limited.outcome in ("ModelTooLargeError", "ModelFileError", "UnsupportedModelError")
    assert limited.grown < ROOM / 2


@pytest.mark.parametrize("object_ids", [[1, 2, 3], [1, "b", 3], [1.0, 2.0, 3.0], [True, 2, 3], [[1], 2, 3]], ids=repr)
def test_no_id_hides_a_reference(object_ids: list[Any]) -> None:
    """Ids are any value that JSON has, and skops compares them as Python does."""
    description, members = parts(fitted())
    attributes(description)["classes_"] = of_objects(laughs(object_ids, 320), 4)
    # In skops the first object of an id counts, and a later one says nothing.
    attributes(description)["more"] = a_list([a_list([], __id__=object_id) for object_id in object_ids])
    with pytest.raises((ModelTooLargeError, ValueError)):
        checked(skops_content(description, members))


def test_an_object_that_refers_to_itself_is_refused() -> None:
    description, members = parts(fitted())
    attributes(description)["more"] = a_list([a_list([reference(1)], __id__=2), reference(2)], __id__=1)
    with pytest.raises(ValueError, match="refers to itself"):
        checked(skops_content(description, members))


def skops_content(description: Any, members: Members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in ({"schema.json": json.dumps(description).encode()} | members).items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.slow
def test_honest_files_are_loaded_in_the_same_room(
    honest_files: list[Path], loaded: dict[tuple[str, bool], Loaded]
) -> None:
    outcomes = [loaded[str(path), are_limited].outcome for path in honest_files for are_limited in (False, True)]
    assert outcomes == ["loaded"] * 8
