"""Loading model files: what comes out is the folded estimator; what cannot come out says why."""

import copy
import hashlib
import logging
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sealserve.protocol.output import Link
from sealserve_service.models.errors import ModelFileError, PickleNotTrustedError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from tests.support.tables import labels, rows_of, table

Rows = NDArray[np.float64]


@pytest.fixture(scope="module")
def estimator(rows: Rows, groups: NDArray[np.int64], fit: Any) -> Any:
    return fit(make_pipeline(StandardScaler(), LogisticRegression()), rows, groups)


def write(path: Path, value: object) -> Path:
    """Save a value in the format of the path's name."""
    if path.suffix == ".skops":
        skops.io.dump(value, path)
    elif path.suffix == ".joblib":
        joblib.dump(value, path, compress=3)
    else:
        path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib", "MODEL.PKL", "model.skops"])
def test_an_estimator_comes_out_as_its_fold(name: str, estimator: Any, tmp_path: Path) -> None:
    path, expected = write(tmp_path / name, estimator), fold(estimator)
    model = load_model(str(path), trust_pickle=not name.endswith(".skops"))
    np.testing.assert_array_equal(model.weights, expected.weights)
    np.testing.assert_array_equal(model.intercept, expected.intercept)
    assert model.output == expected.output


def test_the_model_of_the_azure_guide(mnist_model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(mnist_model_path, trust_pickle=True)
    assert (model.score_count, model.feature_count, model.output.link) == (10, 784, Link.OVR_LOGISTIC)
    assert ["0.22.1" in message for message in caplog.messages] == [True]


def test_versions_of_all_steps_make_one_line_in_the_log(
    estimator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sklearn.base.__version__", "1.2.3")
    path = write(tmp_path / "old.pkl", estimator)
    monkeypatch.undo()
    load_model(path, trust_pickle=True)
    assert [message.startswith(f"{path} was trained with scikit-learn 1.2.3 and") for message in caplog.messages] == [
        True
    ]


class Warns(LogisticRegression):  # type: ignore[misc]
    """Warns of its age when it is loaded."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        warnings.warn("I am old", UserWarning, stacklevel=2)
        super().__setstate__(state)


def test_other_warnings_are_not_swallowed(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pkl", Warns())
    with pytest.warns(UserWarning, match="I am old"), pytest.raises(UnsupportedModelError):
        load_model(path, trust_pickle=True)


# Pickles


class Detonates:
    """Runs code on being loaded, as any pickle may."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_that_is_not_trusted_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "model.pkl", Detonates())
    with pytest.raises(PickleNotTrustedError) as refusal:
        load_model(path, trust_pickle=False)
    for part in (str(path), "runs code of whoever wrote it", "--trust-pickle", "sealserve pack", "skops", "npz"):
        assert part in str(refusal.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_a_damaged_pickle_is_refused(name: str, estimator: Any, tmp_path: Path) -> None:
    path = write(tmp_path / name, estimator)
    for damaged in (b"", b"not a pickle", path.read_bytes()[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="is not a readable pickle"):
            load_model(path, trust_pickle=True)


def test_a_pickle_of_a_missing_module_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cno_such_package\nModel\n.")
    with pytest.raises(ModelFileError, match=r"not installed.*no_such_package"):
        load_model(path, trust_pickle=True)


@pytest.mark.parametrize("name", ["model.pkl", "model.skops"])
def test_a_file_without_an_estimator_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, {"coef": [1.0]})
    with pytest.raises(ModelFileError, match="holds a dict, not a scikit-learn estimator"):
        load_model(path, trust_pickle=True)


def test_an_unsupported_estimator_is_refused(rows: Rows, groups: NDArray[np.int64], fit: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pkl", fit(KNeighborsClassifier(), rows, groups))
    with pytest.raises(UnsupportedModelError, match=r"model\.pkl: KNeighborsClassifier is not supported"):
        load_model(path, trust_pickle=True)


# skops


@pytest.mark.parametrize(
    "unsupported",
    [
        GaussianProcessClassifier(),
        RadiusNeighborsClassifier(100.0),
        KNeighborsClassifier(),
        Warns(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_an_estimator_that_is_not_linear_is_named(
    unsupported: Any, rows: Rows, groups: NDArray[np.int64], fit: Any, tmp_path: Path
) -> None:
    name = type(unsupported).__name__
    for estimator in (unsupported, make_pipeline(StandardScaler(), unsupported)):
        path = write(tmp_path / "model.skops", fit(estimator, rows, groups))
        with pytest.raises(
            UnsupportedModelError, match=rf"model\.skops: .*\b{name}\b.*Supported models: Log"
        ) as refused:
            load_model(path, trust_pickle=False)
        assert "sklearn." not in str(refused.value)


@pytest.mark.parametrize(
    "trees", [RandomForestClassifier(2), DecisionTreeClassifier(), HistGradientBoostingClassifier()]
)
def test_trees_in_a_skops_file_are_sent_to_a_pickle(
    trees: Any, rows: Rows, groups: NDArray[np.int64], fit: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.skops", fit(make_pipeline(StandardScaler(), trees), rows, groups))
    with pytest.raises(
        UnsupportedModelError, match=r"holds trees.* joblib\.dump.* `sealserve pack model.*--trust-pickle"
    ):
        load_model(path, trust_pickle=False)


def _by_type(kind: type) -> Any:
    return make_column_selector(dtype_include=kind)


TABLES: dict[str, Any] = {
    "names": make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5), ["city"]),
        (TfidfVectorizer(), "words"),
    ),
    "types": make_column_transformer(
        (SimpleImputer(strategy="median", add_indicator=True), _by_type(np.number)),
        (OrdinalEncoder(encoded_missing_value=-1), ["city"]),
    ),
    "the rest": make_column_transformer(
        (OneHotEncoder(), ["city"]),
        (KBinsDiscretizer(3), ["income"]),
        ("drop", ["age"]),
        remainder="passthrough",
    ),
    "frames": make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["city"]), (StandardScaler(), ["income"])
    ).set_output(transform="pandas"),
}


@pytest.mark.parametrize("types", ["object", "category", "nullable"])
@pytest.mark.parametrize("name", TABLES)
def test_a_pipeline_on_a_table_comes_out_of_a_skops_file(name: str, types: str, tmp_path: Path) -> None:
    """Types of NumPy, which describe the columns, are no code."""
    frame = table(np.random.default_rng(31))
    if types == "category":
        frame = frame.astype({"city": "category", "rooms": "int64"})
    elif types == "nullable":
        frame = frame.astype({"income": "Float64", "rooms": "Int64"})
    pipeline, y = make_pipeline(clone(TABLES[name]), LogisticRegression()), labels(frame, np.random.default_rng(32))
    frame = frame if name == "names" else frame.drop(columns="words")
    with warnings.catch_warnings(action="ignore"):  # of convergence
        pipeline.fit(frame, y)
    path, expected = write(tmp_path / "model.skops", pipeline), fold(pipeline)
    model = load_model(path, trust_pickle=False)
    np.testing.assert_array_equal(model.weights, expected.weights)
    assert model.published is not None
    assert expected.published is not None
    assert model.published.columns == expected.published.columns
    rows = rows_of(model, frame)
    np.testing.assert_array_equal(model.features(rows), expected.features(rows))


def identity(values: Rows) -> Rows:
    return values


def test_other_types_are_named(estimator: Any, tmp_path: Path) -> None:
    altered = copy.deepcopy(estimator)
    altered[0].mean_ = identity
    path = write(tmp_path / "model.skops", altered)
    with pytest.raises(ModelFileError, match=r"holds [\w.]*test_loading\.identity, which no linear model .* needs"):
        load_model(path, trust_pickle=True)


def test_a_function_that_is_no_type_of_skops_says_how_to_leave_it_to_the_application(
    rows: Rows, groups: NDArray[np.int64], fit: Any, tmp_path: Path
) -> None:
    pipeline = fit(make_pipeline(FunctionTransformer(identity), LogisticRegression()), rows, groups)
    with pytest.raises(ModelFileError) as refusal:
        load_model(write(tmp_path / "model.skops", pipeline), trust_pickle=False)
    for part in ("test_loading.identity", "serve pipeline[k:]", "client.predict(pipeline[:k].transform(X))"):
        assert part in str(refusal.value)


def test_a_damaged_skops_file_is_refused(estimator: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "model.skops", estimator)
    for damaged in (b"", b"not a zip", path.read_bytes()[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="is not a readable skops file"):
            load_model(path, trust_pickle=False)


# Files


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model\.pkl is missing"):
        load_model(tmp_path / "model.pkl", trust_pickle=True)
    with pytest.raises(ModelFileError, match="is not a file"):
        load_model(tmp_path, trust_pickle=True)


@pytest.mark.parametrize("name", ["model.onnx", "model"])
def test_an_unknown_format_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    known = r"\.npz, \.skops, \.sealmodel, \.txt, \.json, \.ubj and, with --trust-pickle, \.pkl, \.pickle, \.joblib"
    with pytest.raises(ModelFileError, match=known):
        load_model(path, trust_pickle=True)


@pytest.mark.parametrize("name", ["model.npz", "model.skops", "model.pkl"])
def test_the_content_is_the_one_that_was_named(name: str, estimator: Any, tmp_path: Path) -> None:
    path, another = tmp_path / name, tmp_path / f"another-{name}"
    for index, file in enumerate((path, another)):
        if file.suffix == ".npz":
            np.savez(file, coef=[1.0, 2.0], intercept=float(index))
        else:
            write(file, estimator if index == 0 else Detonates())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model(path, trust_pickle=True, sha256=digest).feature_count in (2, 6)
    another.replace(path)
    with pytest.raises(ModelFileError, match=f"{name} is not the file it should be: its SHA-256 is .*, not {digest}"):
        load_model(path, trust_pickle=True, sha256=digest)


def test_content_is_not_parsed_before_it_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "model.pkl", Detonates())
    with pytest.raises(ModelFileError, match="not the file it should be"):
        load_model(path, trust_pickle=True, sha256="0" * 64)
    assert not Path("exploded").exists()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, mode: str) -> bytes:
        raise OSError(5, "Input/output error", str(self))

    path = tmp_path / "model.npz"
    path.touch()
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ModelFileError, match=r"model\.npz cannot be read: Input/output error"):
        load_model(path, trust_pickle=False)


def test_npz_needs_no_scikit_learn(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, coef=[1.0, 2.0], intercept=0.5)
    program = (
        "import sys; from sealserve_service.models.loading import load_model; "
        f"load_model({str(path)!r}, trust_pickle=False); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
