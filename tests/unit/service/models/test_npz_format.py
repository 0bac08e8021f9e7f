"""Models as NumPy archives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve.protocol.output import Label, Link, Output, Task
from sealserve_service.models.errors import ModelFileError
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.npz_format import read_model


def written(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "model.npz"
    np.savez(path, **arrays)
    return path


def read(path: Path) -> LinearModel:
    return read_model(path.read_bytes(), path)


@pytest.mark.parametrize("labels", [(3, 5), ("no", "yes"), (False, True), (0.0, 1.0)])
@pytest.mark.parametrize("coef", [[1.0, -2.0], [[1.0, -2.0]]])
def test_binary_classifier(coef: Any, labels: tuple[Label, ...], tmp_path: Path) -> None:
    model = read(written(tmp_path, coef=coef, intercept=0.5, classes=np.array(labels)))
    assert model.output == Output(Task.CLASSIFICATION, 1, labels, Link.NONE)
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert model.decision(rows).tolist() == [[1.5], [-1.5]]
    assert tuple(model.output.predict(model.decision(rows)).tolist()) == labels[::-1]


@pytest.mark.parametrize(("intercept", "expected"), [(0.5, [0.5] * 3), ([0.5], [0.5] * 3), ([1, 2, 3], [1, 2, 3])])
def test_multiclass_classifier(intercept: Any, expected: list[float], tmp_path: Path) -> None:
    path = written(tmp_path, coef=np.arange(6).reshape(3, 2), intercept=intercept, classes=["a", "b", "c"])
    model = read(path)
    assert model.weights.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert model.intercept.tolist() == expected
    assert model.output == Output(Task.CLASSIFICATION, 3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("coef", "shape"), [([1.0, 2.0], (4,)), ([[1.0, 2.0]], (4, 1)), ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], (4, 3))]
)
def test_regressor(coef: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = read(written(tmp_path, coef=coef, intercept=0.0))
    assert model.output.task is Task.REGRESSION
    assert model.output.predict(model.decision(np.ones((4, 2)))).shape == shape


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"coef": [1.0]}, r"holds coef; it needs coef and intercept"),
        ({}, "holds nothing"),
        ({"coef": [1.0], "intercept": 0.0, "labels": [0, 1]}, "holds coef, intercept, labels; .* may have classes"),
        ({"coef": ["a"], "intercept": 0.0}, "coef holds <U1 instead of numbers"),
        ({"coef": [1j], "intercept": 0.0}, "coef holds complex128"),
        ({"coef": [1.0], "intercept": "a"}, "intercept holds <U1"),
        ({"coef": [[1.0], [2.0]], "intercept": [1.0, 2.0, 3.0]}, r"intercept has shape \(3,\) instead of \(2,\)"),
        ({"coef": [[[1.0]]], "intercept": 0.0}, r"weights have shape \(1, 1, 1\)"),
        ({"coef": np.empty((2, 0)), "intercept": 0.0}, r"weights have shape \(2, 0\)"),
        ({"coef": np.empty((0, 2)), "intercept": 0.0}, "at least one score"),
        ({"coef": [np.nan], "intercept": 0.0}, "NaN or infinity in the weights"),
        ({"coef": [1.0], "intercept": np.inf}, "infinity in the intercept"),
        ({"coef": [1.0], "intercept": 0.0, "classes": ["a", "b", "c"]}, "3 classes, but the scores decide between 2"),
        ({"coef": np.eye(3), "intercept": 0.0, "classes": [1, 2]}, "2 classes, but the scores decide between 3"),
        ({"coef": [1.0], "intercept": 0.0, "classes": [1, 1]}, "a class occurs twice"),
        ({"coef": [1.0], "intercept": 0.0, "classes": [b"a", b"b"]}, "not bytes"),
        ({"coef": [1.0], "intercept": 0.0, "classes": 1}, r"classes have shape \(\)"),
        ({"coef": [1.0], "intercept": 0.0, "classes": [[0, 1]]}, r"classes have shape \(1, 2\)"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_another_archive_is_refused(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, **arrays)
    with pytest.raises(ModelFileError, match=reason) as refusal:
        read(path)
    assert str(refusal.value).startswith(str(path))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, coef=np.array([1.0, None]), intercept=0.0)
    with pytest.raises(ModelFileError, match=r"not a readable \.npz archive: Object arrays"):
        read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, coef=np.ones(100), intercept=0.0)
    for damaged in (b"", b"not a zip", path.read_bytes()[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"is not a readable \.npz archive") as caught:
            read(path)
        assert "pickle" not in str(caught.value)  # NumPy's own text advises to allow them


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "model.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ModelFileError, match=r"one array, not an archive: write it with numpy\.savez"):
        read(tmp_path / "model.npz")
