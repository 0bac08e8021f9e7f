"""Parts of `.skops` files, which need no trust: nothing there is called, and no index is believed.

skops trusts a part by its name, whatever makes it. SciPy and libsvm are native code: they read and
write wherever the numbers that they get say.
"""

import importlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from scipy.sparse import csr_matrix, load_npz, save_npz
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC, SVR

from sealserve_service.models import transformers
from sealserve_service.models.errors import ModelFileError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from sealserve_service.models.skops_archive import TRUSTED_PARTS, checked
from tests.support.serving import HANG_SECONDS, ROOT

FAR = (1 << 31) - 64  # items before and after, the gigabytes around an array are not in use
CALLING = ("ConstructorFromReduceNode", "MethodNode", "OperatorFuncNode", "PartialNode")
ROWS = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [0.0, 3.0]] * 3)
LABELS = np.array([0, 1, 1, 2] * 3)


def rewritten(model: Any, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """A model's file with another description or other members."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members.pop("schema.json"))
    change(description, members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in ({"schema.json": json.dumps(description).encode()} | members).items():
            archive.writestr(name, data)
    return file.getvalue()


def with_part(part: dict[str, Any]) -> bytes:
    def add(description: dict[str, Any], members: dict[str, bytes]) -> None:
        description["content"]["content"]["verbose"] = part

    return rewritten(LogisticRegression().fit(ROWS, LABELS), add)


# What makes a part


@pytest.mark.parametrize("loader", CALLING)
@pytest.mark.parametrize("name", TRUSTED_PARTS)
def test_no_trusted_part_is_called(name: str, loader: str) -> None:
    module, _, part = name.rpartition(".")
    nothing = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []}
    content: Any = nothing
    if loader == "PartialNode":
        content = dict.fromkeys(("func", "args", "kwds", "namespace"), nothing)
    elif loader == "MethodNode":
        content = {"func": "mro", "obj": nothing | {"__class__": part, "__module__": module}}
    made = {"__class__": part, "__module__": module, "__loader__": loader, "content": content, "attrs": nothing}
    with pytest.raises(UnsupportedModelError, match="in a way in which skops never saves one"):
        checked(with_part(made))


def test_skops_itself_calls_whatever_is_trusted() -> None:
    """The attack, as it would be."""
    arguments = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "[7]"}
    module, _, part = "sklearn.model_selection._split.KFold".rpartition(".")
    made = {"__class__": part, "__module__": module, "__loader__": "ConstructorFromReduceNode", "content": arguments}
    content = with_part(made)
    assert not set(skops.io.get_untrusted_types(data=content)) - TRUSTED_PARTS.keys()
    assert skops.io.loads(content, trusted=list(TRUSTED_PARTS)).verbose.n_splits == 7


def test_making_a_trusted_part_runs_no_code_of_its_own() -> None:
    """What sets the attributes of an object is skops, or scikit-learn's BaseEstimator."""
    kinds = [name for name, loaders in TRUSTED_PARTS.items() if loaders == ("ObjectNode",)]
    assert kinds
    for name in kinds:
        module, _, part = name.rpartition(".")
        kind = getattr(importlib.import_module(module), part)
        assert kind.__new__ is object.__new__, name
        assert getattr(kind, "__setstate__", None) in (None, BaseEstimator.__setstate__), name


# Indices


def far_index(name: str) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    """Change the sparse attribute of a model to one with indices far beyond its shape."""

    def change(description: dict[str, Any], members: dict[str, bytes]) -> None:
        file = description["content"]["content"][name]["file"]
        matrix = load_npz(io.BytesIO(members[file]))
        matrix.indices[1:] = np.linspace(-FAR, FAR, len(matrix.indices) - 1)
        written = io.BytesIO()
        save_npz(written, matrix)
        members[file] = written.getvalue()

    return change


def sparse_machine() -> SVC:
    return SVC(kernel="linear").fit(csr_matrix(ROWS), LABELS > 0)


def with_counts(machine: Any) -> bytes:
    """A machine with a negative number of support vectors of its first class: the sum is right."""
    machine._n_support = np.array([-FAR, FAR + len(machine.support_vectors_)], np.int32)
    content: bytes = skops.io.dumps(machine)
    return content


def exit_code(path: Path, *removed: str) -> int:
    """Load a model in a process of its own and score by it, without some of the checks."""
    program = f"""
import sys
import numpy as np
from sealserve_service.models import collapses, skops_archive
for name in {removed!r}:
    module = collapses if hasattr(collapses, name) else skops_archive
    setattr(module, name, lambda *_: None)
from sealserve_service.models.loading import load_model
model = load_model({str(path)!r}, trust_pickle=False)
model.plain_scores(np.ones((4, 2)))
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=10 * HANG_SECONDS, check=False
    ).returncode


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "index": (lambda: rewritten(sparse_machine(), far_index("dual_coef_")), "_check_sparse"),
    "support": (
        lambda: with_counts(SVC(kernel="linear").fit(ROWS, LABELS > 0)),
        "_check_support",
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_numbers_that_lead_native_code_elsewhere_are_refused(what: str, tmp_path: Path) -> None:
    make, _ = ATTACKS[what]
    (tmp_path / "model.skops").write_bytes(make())
    with pytest.raises((ModelFileError, UnsupportedModelError)):
        load_model(tmp_path / "model.skops", trust_pickle=False)


@pytest.mark.slow  # seconds for each process
@pytest.mark.parametrize("what", ATTACKS)
def test_without_the_check_they_end_the_process(what: str, tmp_path: Path) -> None:
    """The attack, as it would be: a read far beyond an array, which the system notices."""
    make, check = ATTACKS[what]
    (tmp_path / "model.skops").write_bytes(make())
    assert exit_code(tmp_path / "model.skops") == 1
    assert exit_code(tmp_path / "model.skops", check) < 0


@pytest.mark.parametrize("name", ["_n_support", "support_", "_dual_coef_", "_intercept_", "_probA", "_probB", "_impl"])
@pytest.mark.parametrize("kind", [SVC, SVR])
def test_sizes_that_libsvm_does_not_know_are_compared(name: str, kind: Any) -> None:
    machine = kind(kernel="linear").fit(ROWS, LABELS)
    fold(machine)
    changed: Any = "one_class"
    if name != "_impl":
        array = getattr(machine, name)
        changed = np.ones(7) if name.startswith("_prob") else np.concatenate([array, array], axis=-1)
    setattr(machine, name, changed)
    with pytest.raises(UnsupportedModelError, match=name if name != "_n_support" else "_n_support|classes"):
        fold(machine)


@pytest.mark.parametrize(
    "change",
    [
        {"format": b"csc"},
        {"format": b"coo"},
        {"indices": np.array([0, -1], np.int32)},
        {"indptr": np.array([0, 5], np.int32)},
        {"shape": np.array([1, 1])},
        {"shape": np.array([-1, 2])},
        {"other": np.zeros(1)},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_an_archive_in_an_archive_is_a_sparse_matrix(change: dict[str, Any], tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "data": np.array([1.0, 2.0]),
        "indices": np.array([0, 1], np.int32),
        "indptr": np.array([0, 2], np.int32),
        "shape": np.array([1, 2]),
        "format": b"csr",
    }

    def replace(description: dict[str, Any], members: dict[str, bytes]) -> None:
        written = io.BytesIO()
        np.savez(written, **(parts | change))
        members[description["content"]["content"]["coef_"]["file"]] = written.getvalue()

    model = LogisticRegression().fit(ROWS, LABELS > 0).sparsify()
    assert checked(skops.io.dumps(model))
    (tmp_path / "model.skops").write_bytes(rewritten(model, replace))
    with pytest.raises(ModelFileError, match="is not a readable skops file"):
        load_model(tmp_path / "model.skops", trust_pickle=False)


def encoder_of_far_places() -> Pipeline:
    """A fitted OneHotEncoder whose rare category has a place far beyond its outputs."""
    rows = np.array([["a"], ["b"], ["b"], ["c"]] * 3, object)
    pipeline = make_pipeline(OneHotEncoder(min_frequency=4), LogisticRegression()).fit(rows, LABELS)
    encoder = pipeline[0]
    encoder._default_to_infrequent_mappings = [np.array([1, 0, 1 << 29])]
    return pipeline


def test_what_a_transformer_returns_is_not_believed_either() -> None:
    encoder, rows = encoder_of_far_places()[0], np.array([["c"]], object)
    found = encoder.transform(rows)  # the attack: `toarray` would write there
    with pytest.raises(ValueError, match="indices"):
        found.check_format(full_check=True)
    with pytest.raises(ValueError, match="indices"):
        transformers.transformed(encoder, rows)


def test_an_honest_sparse_head_is_loaded(tmp_path: Path) -> None:
    for model in (LogisticRegression().fit(ROWS, LABELS).sparsify(), sparse_machine()):
        skops.io.dump(model, tmp_path / "model.skops")
        loaded = load_model(tmp_path / "model.skops", trust_pickle=False)
        assert np.allclose(loaded.plain_scores(ROWS), model.decision_function(ROWS).reshape(len(ROWS), -1))
