"""Packed models, from `sealserve pack` to a client: served as the models that they were made of."""

import dataclasses
import hashlib
import logging
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import PlanError
from sealserve.protocol import wire
from sealserve.protocol.model import Verdict
from sealserve.v1 import model_pb2
from sealserve_service.catalog.packing import pack, write_private
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.errors import PublicationError
from sealserve_service.models.loading import load_model
from sealserve_service.settings.model_source import ModelSource
from tests.support.command_line import fails
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server
from tests.support.tables import labels, table
from tests.support.waiting import wait_until

BITS = 40
MODES = pytest.mark.parametrize("bits", [None, BITS], ids=["open", "private"])


class Case(NamedTuple):
    """A fitted estimator and rows of it.

    Attributes:
        estimator: fitted to the rows.
        rows: a table.
        publish: what has to be agreed to.
        accept_training_values: whether training values have to be agreed to.
    """

    estimator: Any
    rows: pd.DataFrame
    publish: tuple[str, ...] = ()
    accept_training_values: bool = False


def _linear() -> Case:
    X, y = load_wine(return_X_y=True, as_frame=True)
    names = np.array(["red", "rose", "white"])[y]
    return Case(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, names), X)


def _curves() -> Case:
    X, y = load_wine(return_X_y=True, as_frame=True)
    estimator = CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=2, method="isotonic")
    return Case(estimator.fit(X, y), X, ("steps",), accept_training_values=True)


def _log_link() -> Case:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    return Case(make_pipeline(StandardScaler(), PoissonRegressor()).fit(X, y), X)


def _one_hot() -> Case:
    whole = table(np.random.default_rng(21), 400)
    frame = whole[["age", "city", "words"]]
    branches = [
        ("age", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("words", TfidfVectorizer(), "words"),
    ]
    estimator = make_pipeline(ColumnTransformer(branches), LogisticRegression())
    return Case(estimator.fit(frame, labels(whole, np.random.default_rng(22), 3)), frame, ("steps",))


def _left_out() -> Case:
    whole = table(np.random.default_rng(25), 400).fillna({"age": 50.0})
    frame = whole[["city", "age", "words", "income"]]
    estimator = make_pipeline(ColumnTransformer([("a", StandardScaler(), ["income", "age"])]), LogisticRegression())
    return Case(estimator.fit(frame, labels(whole, np.random.default_rng(26))), frame)


def _boosted() -> Case:
    whole = table(np.random.default_rng(23), 400)
    frame = whole[["age", "income", "rooms"]]
    estimator = HistGradientBoostingClassifier(max_iter=10)
    return Case(estimator.fit(frame, labels(whole, np.random.default_rng(24))), frame, ("structure",))


CASES: dict[str, Callable[[], Case]] = {
    "linear": _linear,
    "curves": _curves,
    "log link": _log_link,
    "one-hot": _one_hot,
    "left out": _left_out,
    "boosted": _boosted,
}
WITH_ROWS = {"linear", "log link", "one-hot", "left out"}
"""Calibration rows are given for these. The ranges of others come from a scaler, or from steps."""


class Files(NamedTuple):
    """An estimator in a pickle, and what an operator says of it; and the packed file."""

    case: Case
    original: ModelSource
    packed: ModelSource


QUICK = {"one-hot", "left out"}
_CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.fixture(scope="module", params=_CASES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return packed_files(request.param, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def one_hot(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return packed_files("one-hot", tmp_path_factory.mktemp("one-hot"))


@pytest.fixture(scope="module")
def linear_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return packed_files("linear", tmp_path_factory.mktemp("linear"))


def packed_files(name: str, folder: Path) -> Files:
    with warnings.catch_warnings(action="ignore"):  # of convergence
        case = CASES[name]()
    joblib.dump(case.estimator, folder / "model.pkl")
    case.rows.to_csv(folder / "rows.csv", index=False)
    rows = folder / "rows.csv" if name in WITH_ROWS else None
    original = ModelSource(
        "model",
        folder / "model.pkl",
        calibration=rows,
        publish=case.publish,
        accept_training_values=case.accept_training_values,
    )
    write_private(folder / "model.sealmodel", pack(original, trust_pickle=True, hiding_bits=BITS).content)
    return Files(case, original, ModelSource("model", folder / "model.sealmodel"))


def loaded(source: ModelSource, bits: int | None = None, keys: Any = None, **options: Any) -> ServedModel:
    private = PrivateWeights(bits, (keys or registered_keys()).zero_encryptor) if bits else None
    trust = source.path.suffix == ".pkl"
    options = {"accept_disagreement": True} | options
    return load_source(source, trust_pickle=trust, limits=LIMITS, private=private, **options)


def description(served: ServedModel) -> model_pb2.Model:
    """The description, with its config_id, but without the costs: they are measured."""
    message = wire.model_to_proto(served.model)
    for offer in message.offers:
        offer.ClearField("cost")
    return message


@MODES
def test_the_description_is_the_originals(files: Files, bits: int | None) -> None:
    original, packed = loaded(files.original, bits), loaded(files.packed, bits)
    assert description(packed) == description(original)
    assert packed.steps == original.steps
    assert packed.model.verdict is original.model.verdict
    if files.original.calibration is not None:
        assert packed.model.verdict is not Verdict.UNCHECKED
        assert all(offer.observed_error for offer in packed.model.offers)


@MODES
@pytest.mark.parametrize("layout", ["row", "column"])
def test_labels_and_scores_are_the_originals(files: Files, bits: int | None, layout: str) -> None:
    keys, rows = registered_keys(), files.case.rows[:20]
    found = []
    for source in (files.original, files.packed):
        with (
            running_server(ModelRegistry([loaded(source, bits, keys)]), keys=keys) as address,
            Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client,
        ):
            scored = client.scored(rows)
            found.append((scored.scores, np.asarray(scored.predictions)))
    np.testing.assert_array_equal(found[1][0], found[0][0])
    np.testing.assert_array_equal(found[1][1], found[0][1])
    expected = files.case.estimator.predict(rows)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found[1][1], expected, rtol=0.02)
    else:
        assert np.mean(found[1][1] == expected) >= 0.95


def test_equal_input_makes_an_equal_file(files: Files) -> None:
    again = pack(files.original, trust_pickle=True, hiding_bits=BITS).content
    assert again == files.packed.path.read_bytes()
    assert pack(files.packed, trust_pickle=False, hiding_bits=BITS).content == again, "also of the packed file"


def test_no_row_is_in_the_file(one_hot: Files) -> None:
    """Neither a text nor three numbers of the calibration rows are found."""
    content = one_hot.packed.path.read_bytes()
    for words in one_hot.case.rows["words"]:
        assert words.encode() not in content
    ages = one_hot.case.rows["age"].dropna().to_numpy()
    for first in range(len(ages) - 3):
        assert ages[first : first + 3].tobytes() not in content


# Consent


def test_without_consent_nothing_is_packed(one_hot: Files) -> None:
    refusals = []
    for refused in (
        lambda source: loaded(source),
        lambda source: pack(source, trust_pickle=True, hiding_bits=BITS),
    ):
        with pytest.raises(PublicationError) as refusal:
            refused(dataclasses.replace(one_hot.original, publish=()))
        refusals.append(str(refusal.value).partition("clients compute")[2])
    assert refusals[0] == refusals[1]
    assert "the 5 categories of 1 column (steps)" in refusals[1]


def test_a_packed_file_is_served_without_consent_and_says_what_it_tells(one_hot: Files) -> None:
    model = load_model(one_hot.packed.path, trust_pickle=False)
    original = load_model(one_hot.original.path, trust_pickle=True)
    assert model.published is not None
    assert original.published is not None
    assert model.published.publications == original.published.publications
    assert loaded(one_hot.packed).model.steps_id


# What serve says beside the file


def test_other_ranges_take_the_place_of_the_packed_ones(linear_files: Files) -> None:
    for said in ({"input_range": (0.0, 2000.0)}, {"input_margin": 1.0}, {"input_margin": 0.0}):
        original = loaded(dataclasses.replace(linear_files.original, calibration=None, **said))
        packed = loaded(dataclasses.replace(linear_files.packed, **said))
        assert description(packed) == description(original)
    rows = linear_files.original.calibration
    packed = loaded(dataclasses.replace(linear_files.packed, calibration=rows, input_margin=0.1))
    original = loaded(dataclasses.replace(linear_files.original, input_margin=0.1))
    np.testing.assert_array_equal(packed.model.grid.maximum, original.model.grid.maximum)
    assert packed.model.verdict is original.model.verdict


def test_an_acceptable_error_is_packed(linear_files: Files, tmp_path: Path) -> None:
    asked = dataclasses.replace(linear_files.original, max_score_error=1e-3)
    path = tmp_path / "model.sealmodel"
    path.write_bytes(pack(asked, trust_pickle=True, hiding_bits=BITS).content)
    source = ModelSource("model", path)
    assert description(loaded(source)) == description(loaded(asked)) != description(loaded(linear_files.packed))
    with pytest.raises(PlanError, match="no parameter set keeps the score error within"):
        loaded(dataclasses.replace(source, max_score_error=1e-12))


def test_a_plan_that_was_not_judged_has_no_verdict_of_rows(
    linear_files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """The file has no rows, so that another plan cannot be judged by them."""
    with caplog.at_level(logging.WARNING):
        served = loaded(dataclasses.replace(linear_files.packed, max_score_error=1e-4))
    assert {offer.verdict for offer in served.model.offers} == {Verdict.UNCHECKED}
    assert not any(offer.observed_error for offer in served.model.offers)
    assert "the file has no verdict on this plan" in caplog.text


def test_a_verdict_that_refuses_is_packed(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(300, 3))
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "model.npz", coef=np.array([[1.0, -1.0, 1e-3]]), intercept=0.0, classes=["no", "yes"])
    source = ModelSource("model", tmp_path / "model.npz", input_range=(-1e9, 1e9), calibration=tmp_path / "rows.npy")
    with pytest.raises(PlanError, match="verdict is REFUSE") as refusal:
        loaded(source, accept_disagreement=False)
    (tmp_path / "model.sealmodel").write_bytes(pack(source, trust_pickle=False, hiding_bits=BITS).content)
    with pytest.raises(PlanError, match="verdict is REFUSE") as of_packed:
        loaded(ModelSource("model", tmp_path / "model.sealmodel"), accept_disagreement=False)
    assert str(of_packed.value).partition("the verdict")[2] == str(refusal.value).partition("the verdict")[2]


def test_declared_groups_are_packed(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", coef=np.array([1.0, -2.0, 0.5, 0.25]), intercept=0.0)
    (tmp_path / "r.csv").write_text("name,min,max,step,at_most_one\n0,0,10,0.5,\n1,,,,c\n2,,,,c\n3,-1,1,,\n")
    source = ModelSource("model", tmp_path / "model.npz", input_ranges=tmp_path / "r.csv")
    (tmp_path / "model.sealmodel").write_bytes(pack(source, trust_pickle=False, hiding_bits=BITS).content)
    packed = loaded(ModelSource("model", tmp_path / "model.sealmodel"))
    assert packed.model.grid.constraints.group.tolist() == [0, 1, 1, 0]
    assert packed.model.grid.has_groups
    assert description(packed) == description(loaded(source))


def test_declared_ranges_of_columns_are_packed(one_hot: Files, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("name,min,max,step\nage,0,120,1\n")
    (tmp_path / "other.csv").write_text("name,min,max\nage,-200,200\n")
    asked = dataclasses.replace(one_hot.original, calibration=None, input_ranges=tmp_path / "r.csv")
    (tmp_path / "model.sealmodel").write_bytes(pack(asked, trust_pickle=True, hiding_bits=BITS).content)
    source = ModelSource("model", tmp_path / "model.sealmodel")
    assert description(loaded(source)) == description(loaded(asked)) != description(loaded(one_hot.packed))
    # What serve says takes the place of all that was declared, the integers too.
    others: list[dict[str, Any]] = [
        {"input_ranges": tmp_path / "other.csv"},
        {"calibration": one_hot.original.calibration},
    ]
    for said in others:
        original = loaded(dataclasses.replace(asked, **{"input_ranges": None} | said))
        assert description(loaded(dataclasses.replace(source, **said))).input == description(original).input


# The command


def packs(*arguments: str | Path) -> None:
    assert main(["pack", *map(str, arguments)]) == 0


def test_the_command(one_hot: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.sealmodel"
    options = ("--trust-pickle", "--calibration", str(one_hot.original.calibration), "--publish", "steps,structure")
    packs(one_hot.original.path, "-o", path, *options)
    assert path.read_bytes() == one_hot.packed.path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["shop.sealmodel"]
    text = capsys.readouterr().out
    for part in (
        "for its owner only (mode 0600)",
        f"@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        "(OneHotEncoder): the 5 categories of 1 column",
        "honest scores suffice to copy this head",
        "--weights private, layout row: ",
        "--weights open, layout column: ",
        "on 400 calibration rows",
    ):
        assert part in text
    main(["inspect", str(path), "--weights", "open"])
    text = capsys.readouterr().out
    assert "(OneHotEncoder): the 5 categories of 1 column" in text
    assert "honest scores suffice to copy this head" in text
    assert "on 400 calibration rows" in text


def test_the_command_replaces_a_file_that_others_could_read(one_hot: Files, tmp_path: Path) -> None:
    path = tmp_path / "model.sealmodel"
    path.write_bytes(b"before")
    path.chmod(0o644)
    packs(one_hot.packed.path, "-o", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == one_hot.packed.path.read_bytes()


def test_what_the_command_refuses(one_hot: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, trusted = tmp_path / "model.sealmodel", (one_hot.original.path, "--trust-pickle")
    assert "sealserve pack" in fails(capsys, "pack", one_hot.original.path, "-o", path)
    assert "known by its suffix .sealmodel" in fails(capsys, "pack", *trusted, "-o", tmp_path / "model.npz")
    assert main(["pack", *map(str, trusted), "-o", str(path)]) == 1
    assert "agree by --publish steps" in capsys.readouterr().err
    missing = tmp_path / "missing" / "model.sealmodel"
    assert "No such file or directory" in fails(capsys, "pack", one_hot.packed.path, "-o", missing)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.sealmodel"
    write_private(path, b"before")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"after")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.sealmodel", b"before")]


# The service


@pytest.fixture(scope="module")
def without_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules that write their name to a file when they are imported, and fail."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in ("sklearn", "scipy", "skops", "joblib", "xgboost", "lightgbm", "catboost", "pandas"):
        (folder / f"{name}.py").write_text(
            f"open({str(folder / 'imported')!r}, 'a').write({name!r})\nraise ImportError('{name} is blocked')\n"
        )
    return folder


def served_without(folder: Path, *options: str, log: Path) -> Any:
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    return serve(*options, log=log, PYTHONPATH=paths)


@pytest.mark.parametrize("weights", ["open", "private"])
def test_a_packed_file_is_served_without_scikit_learn(
    files: Files, weights: str, without_libraries: Path, tmp_path: Path
) -> None:
    options = ("--model", f"model={files.packed.path}", "--weights", weights, "--processes", "1")
    rows = files.case.rows[:20]
    with (
        served_without(without_libraries, *options, log=tmp_path / "log") as program,
        Client(program.address, timeout_seconds=HANG_SECONDS) as client,
    ):
        predicted, expected = client.predict(rows), files.case.estimator.predict(rows)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(predicted, expected, rtol=0.02)
    else:
        assert np.mean(predicted == expected) >= 0.95
    assert not (without_libraries / "imported").exists()


def test_blocked_libraries_would_be_seen(one_hot: Files, without_libraries: Path, tmp_path: Path) -> None:
    """The pickle, on the other hand, needs them."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    for module in without_libraries.glob("*.py"):
        (folder / module.name).write_text(module.read_text().replace(str(without_libraries), str(folder)))
    options = ("--model", f"model={one_hot.original.path}", "--trust-pickle", "--publish", "steps")
    with (
        pytest.raises(AssertionError, match="did not start"),
        served_without(folder, *options, log=tmp_path / "log"),
    ):
        pass
    assert (folder / "imported").exists()


def packed_line(folder: Path, slope: float) -> bytes:
    path = folder / "line.npz"
    np.savez(path, coef=np.array([slope, 0.0]), intercept=0.0)
    source = ModelSource("line", path, input_range=(0.0, 1.0))
    return pack(source, trust_pickle=False, hiding_bits=BITS).content


def test_a_packed_file_is_followed(tmp_path: Path) -> None:
    path, row = tmp_path / "served" / "line.sealmodel", [[1.0, 0.5]]
    path.parent.mkdir()
    write_private(path, packed_line(tmp_path, 1.0))

    def score() -> float:
        found: NDArray[np.float64] = client.predict(row)
        return float(found[0])

    with (
        serve("--watch", "--log-level", "info", log=tmp_path / "log", AZUREML_MODEL_DIR=str(path.parent)) as program,
        Client(program.address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert score() == pytest.approx(1.0, abs=0.01)
        write_private(path, packed_line(tmp_path, 2.0))
        wait_until(lambda: abs(score() - 2.0) < 0.01)
        path.write_bytes(packed_line(tmp_path, 3.0)[:-10])
        wait_until(lambda: any("ERROR" in line and "not a readable .sealmodel" in line for line in program.said))
        assert score() == pytest.approx(2.0, abs=0.01)
