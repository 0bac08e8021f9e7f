"""The library of model files: what has changed is loaded, once and whole.

What cannot be loaded changes nothing.
"""

import dataclasses
import itertools
import logging
import os
import time
import weakref
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from sealserve.errors import InputError, PlanError
from sealserve.protocol.item import ItemHeader
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.registry import ServedModel
from sealserve_service.catalog.reloader import Reloader
from sealserve_service.catalog.sources import folder_sources, load_source
from sealserve_service.models.errors import InputRangeError, ModelFileError
from sealserve_service.models.limits import MAX_CALIBRATION_BYTES
from sealserve_service.settings.model_source import ModelFolder, ModelSource
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.serving import LIMITS
from tests.support.waiting import wait_until

FAST = ModelSource("", Path(), input_range=(0.0, 1.0), input_step=1 / 16, max_score_error=1.0)
TICKS = itertools.count()
LIBRARY = ModelLibrary.__module__


class Shelf:
    """A library of real files, and what was loaded of it."""

    def __init__(self, list_sources: Callable[[], Sequence[ModelSource]]) -> None:
        self.loaded: list[str] = []
        self.before_load: Callable[[ModelSource], None] = lambda source: None
        self.library = ModelLibrary(list_sources, self._load)

    def _load(self, source: ModelSource) -> ServedModel:
        self.loaded.append(source.name)
        self.before_load(source)
        return load_source(source, trust_pickle=False, limits=LIMITS)

    def get(self, name: str) -> ServedModel:
        return self.library.models.get(name, ANONYMOUS)

    @property
    def names(self) -> list[str]:
        return [served.model.name for served in self.library.models.after("", ANONYMOUS)]

    def settle(self) -> None:
        """Look more often than it takes to follow every change."""
        for _ in range(4):
            self.library.follow()


def write(path: Path, slope: float) -> None:
    np.savez(path, coef=np.array([slope, 1.0]), intercept=np.array(0.5))
    os.utime(path, ns=(0, next(TICKS)))  # two writes may come within one tick of the file system's clock


def weight(served: ServedModel) -> float:
    """The largest score, which tells the models of `write` apart."""
    offer = served.model.offers[0]
    return float((offer.score_centers[0] + offer.score_radii[0]) / offer.score_scale)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "a.npz", 1.0)
    return tmp_path / "a.npz"


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The errors logged since the last call."""

    def asked() -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        caplog.clear()
        return said

    return asked


def of_files(*paths: Path) -> Shelf:
    sources = tuple(dataclasses.replace(FAST, name=path.stem, path=path) for path in paths)
    return Shelf(lambda: sources)


def of_folder(path: Path) -> Shelf:
    folder = ModelFolder(path, (), FAST)
    return Shelf(lambda: folder_sources(folder))


def messages_of_the_library(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log without what the verdicts are."""
    return [record.getMessage() for record in caplog.records if record.name == LIBRARY]


def test_only_what_has_changed_is_loaded(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = path.with_name("b.npz")
    write(other, 1.0)
    shelf = of_files(path, other)
    before = shelf.get("a"), shelf.get("b")
    write(path, 3.0)
    os.utime(other)
    with caplog.at_level(logging.INFO):
        shelf.library.reload()
    assert shelf.loaded == ["a", "b", "a"]
    after = shelf.get("a"), shelf.get("b")
    assert (weight(before[0]), weight(after[0])) == pytest.approx((2.5, 4.5), abs=0.1)
    assert after[1] is before[1]
    assert messages_of_the_library(caplog) == [
        f"model a is served: version {before[0].model.version} -> {after[0].model.version}",
        f"model b has not changed: version {before[1].model.version}",
    ]
    shelf.settle()
    assert shelf.loaded == ["a", "b", "a"]


def test_a_model_that_is_another_for_its_clients_says_so(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def changes(**arrays: Any) -> list[str]:
        caplog.clear()
        np.savez(path, **arrays)
        shelf.library.reload()
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        return [record.getMessage() for record in warnings if record.name == LIBRARY]

    shelf = of_files(path)
    said = "model a is another than before for its clients: "
    assert changes(coef=np.array([1.0, 2.0, 3.0]), intercept=0.5) == [
        f"{said}its rows have 3 columns, not 2 as before",
    ]
    assert changes(coef=np.array([1.0, 2.0, 4.0]), intercept=0.5) == []
    both = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]])
    assert changes(coef=both, intercept=np.zeros(3), classes=np.array(["a", "b", "c"])) == [
        f"{said}its rows have 2 columns, not 3 as before; its classes are others: unexpected: a, b, c"
    ]
    assert changes(coef=both, intercept=np.zeros(3), classes=np.array(["a", "d", "b"])) == [
        f"{said}its classes are others: missing: c; unexpected: d"
    ]
    assert changes(coef=both, intercept=np.zeros(3), classes=np.array(["d", "a", "b"])) == [
        f"{said}its classes are others: in another order: number 0 is 'd', not 'a'"
    ]
    assert changes(coef=both + 1, intercept=np.zeros(3), classes=np.array(["d", "a", "b"])) == []


def test_names_of_columns_that_change_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "named.skops"
    sources = [dataclasses.replace(FAST, name="named", path=path)]
    for names in (["age", "income"], ["age", "rent"]):
        rows = pd.DataFrame([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], columns=names)
        skops.io.dump(LinearRegression().fit(rows, [0.0, 1.0, 2.0]), path)
        if names[1] == "income":
            shelf = Shelf(lambda: sources)
    shelf.library.reload()
    assert "its columns have other names: missing: income; unexpected: rent" in caplog.text


def test_a_change_is_followed_when_the_file_stands_still(path: Path) -> None:
    shelf, new = of_files(path), path.with_name("new")
    with new.open("wb") as file:
        np.savez(file, coef=np.array([3.0, 1.0]), intercept=np.array(0.5))
    data = new.read_bytes()
    with path.open("wb") as file:
        for begin in range(0, len(data), 100):
            file.write(data[begin : begin + 100])
            file.flush()
            shelf.library.follow()
    assert shelf.loaded == ["a"]
    shelf.library.follow()
    assert shelf.loaded == ["a", "a"]
    assert weight(shelf.get("a")) == pytest.approx(4.5, abs=0.1)
    new.replace(path)
    shelf.settle()
    assert shelf.loaded == ["a", "a"], "the same bytes in another file"


def breaks_by_garbage(path: Path) -> None:
    path.write_bytes(b"no model")


def breaks_by_an_end_too_soon(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def breaks_by_other_arrays(path: Path) -> None:
    np.savez(path, weights=np.ones(2))


def breaks_by_absence(path: Path) -> None:
    path.unlink()


def breaks_by_not_being_a_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


def breaks_by_being_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def breaks_by_numbers_that_no_plan_can_serve(path: Path) -> None:
    np.savez(path, coef=np.full(2, 1e30), intercept=np.array(0.5))


@pytest.mark.parametrize(
    "break_it",
    [
        breaks_by_garbage,
        breaks_by_an_end_too_soon,
        breaks_by_other_arrays,
        breaks_by_absence,
        breaks_by_not_being_a_file,
        breaks_by_being_a_pipe,
        breaks_by_numbers_that_no_plan_can_serve,
    ],
)
def test_a_broken_file_changes_nothing_and_is_reported_once(
    path: Path, errors: Callable[[], list[str]], break_it: Callable[[Path], None]
) -> None:
    good, other = path.read_bytes(), path.with_name("b.npz")
    write(other, 1.0)
    shelf = of_files(path, other)
    before = shelf.get("a")
    break_it(path)
    write(other, 3.0)
    shelf.settle()
    (said,) = errors()
    assert said.startswith(f"model a stays at version {before.model.version}: ")
    assert "Traceback" not in said
    assert shelf.get("a") is before
    assert weight(shelf.get("b")) == pytest.approx(4.5, abs=0.1), "others are followed"
    shelf.library.reload()
    assert errors() == [said], "who asks is told again"

    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(good)
    shelf.settle()
    assert shelf.get("a") is before, "the good file is back: nothing has to be loaded"
    write(path, 3.0)
    shelf.settle()
    assert weight(shelf.get("a")) == pytest.approx(4.5, abs=0.1)
    assert errors() == []


def test_a_file_that_changes_while_it_is_read_is_not_served(path: Path, errors: Callable[[], list[str]]) -> None:
    shelf = of_files(path)
    before = shelf.get("a")
    shelf.before_load = lambda source: write(source.path, len(shelf.loaded) + 3.0)
    write(path, 2.0)
    shelf.library.reload()
    assert shelf.get("a") is before
    assert "while it was read" in errors()[0]
    shelf.before_load = lambda source: None
    shelf.settle()
    assert weight(shelf.get("a")) == pytest.approx(6.5, abs=0.1)


def test_a_model_that_changes_before_its_turn_waits(tmp_path: Path, errors: Callable[[], list[str]]) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    for path in (first, second):
        write(path, 1.0)
    shelf = of_files(first, second)
    for path in (first, second):
        write(path, 2.0)
    shelf.library.follow()
    shelf.before_load = lambda source: write(second, 3.0)
    shelf.library.follow()
    assert shelf.loaded == ["a", "b", "a"]
    shelf.before_load = lambda source: None
    shelf.settle()
    assert weight(shelf.get("b")) == pytest.approx(4.5, abs=0.1)
    assert errors() == []


def test_an_unforeseen_failure_leaves_its_trace_and_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf = of_files(path)
    before = shelf.get("a")

    def fail(source: ModelSource) -> None:
        raise MemoryError("all of it")

    shelf.before_load = fail
    write(path, 3.0)
    shelf.settle()
    (record,) = (record for record in caplog.records if record.name == LIBRARY)
    assert record.getMessage().endswith("MemoryError: all of it")
    assert record.exc_info
    assert shelf.get("a") is before
    shelf.before_load = lambda source: None
    shelf.library.reload()
    assert weight(shelf.get("a")) == pytest.approx(4.5, abs=0.1), "who asks tries again"


def test_at_the_start_every_model_has_to_be_good(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.npz"):
        of_files(path, path.with_name("missing.npz"))


def test_calibration_rows_are_followed_too(path: Path) -> None:
    rows = path.with_name("rows.npy")
    np.save(rows, [[0.0, 0.0], [1.0, 1.0]])
    shelf = Shelf(lambda: [ModelSource("a", path, calibration=rows)])
    before = shelf.get("a").model
    np.save(rows, [[0.0, 0.0], [2.0, 2.0]])
    shelf.settle()
    after = shelf.get("a").model
    assert after.version == before.version
    assert after.config_id != before.config_id
    assert (before.grid.maximum.max(), after.grid.maximum.max()) == (1.0, 3.0)  # 0 and 1 have no margin


def test_calibration_rows_are_those_of_the_digest(path: Path) -> None:
    np.save(rows := path.with_name("rows.npy"), [[0.0, 0.0], [1.0, 1.0]])
    pinned = ModelSource("a", path, calibration=rows, calibration_sha256=sha256(rows.read_bytes()).hexdigest())
    before = load_source(pinned, trust_pickle=False, limits=LIMITS).model
    np.save(rows, [[0.0, 0.0], [2.0, 2.0]])
    with pytest.raises(InputRangeError, match=r"rows\.npy is not the file it should be: its SHA-256 is [0-9a-f]{64}"):
        load_source(pinned, trust_pickle=False, limits=LIMITS)
    np.save(rows, [[0.0, 0.0], [1.0, 1.0]])
    assert load_source(pinned, trust_pickle=False, limits=LIMITS).model.config_id == before.config_id


def test_calibration_rows_that_are_checked_are_those_that_are_parsed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is replaced between two readings must not be read twice."""
    np.save(rows := path.with_name("rows.npy"), [[0.0, 0.0], [1.0, 1.0]])
    np.save(other := path.with_name("other.npy"), [[0.0, 0.0], [2.0, 2.0]])
    pinned = ModelSource("a", path, calibration=rows, calibration_sha256=sha256(rows.read_bytes()).hexdigest())
    open_file = Path.open

    def open_and_replace(self: Path, mode: str = "r") -> Any:
        opened = open_file(self, mode)
        if self == rows and other.exists():
            other.replace(rows)
        return opened

    monkeypatch.setattr(Path, "open", open_and_replace)
    assert load_source(pinned, trust_pickle=False, limits=LIMITS).model.grid.maximum.max() == 1.0
    with pytest.raises(InputRangeError, match="not the file it should be"):
        load_source(pinned, trust_pickle=False, limits=LIMITS)


def test_a_folder_is_followed(path: Path, errors: Callable[[], list[str]]) -> None:
    shelf = of_folder(path.parent)
    before = shelf.get("a")
    (path.parent / "deep").mkdir()
    write(path.parent / "deep" / "b.npz", 3.0)
    (path.parent / ".copying").mkdir()
    write(path.parent / ".copying" / "c.npz", 1.0)
    write(path.parent / "._a.npz", 1.0)
    (path.parent / "notes.txt").write_text("no model")
    shelf.library.follow()
    assert shelf.names == ["a"]
    shelf.library.follow()
    assert shelf.names == ["a", "b"]
    (path.parent / "deep" / "b.npz").replace(path.parent / "c.npz")
    shelf.settle()
    assert shelf.names == ["a", "c"]
    (path.parent / "c.npz").unlink()
    shelf.library.reload()
    assert shelf.names == ["a"]
    assert shelf.get("a") is before
    assert errors() == []


def test_a_folder_without_models_is_taken_for_a_mistake(path: Path, errors: Callable[[], list[str]]) -> None:
    shelf, aside = of_folder(path.parent), path.parent.with_name("aside")
    before = shelf.get("a")
    path.rename(path.with_suffix(".bak"))
    shelf.settle()
    (said,) = errors()
    assert said.startswith("every model stays as it is: no model to serve: ")
    path.with_suffix(".bak").rename(path)
    path.parent.rename(aside)
    shelf.settle()
    (said,) = errors()
    assert str(path.parent) in said
    shelf.library.reload()
    assert errors() == [said]
    aside.rename(path.parent)
    shelf.settle()
    assert errors() == []
    assert shelf.get("a") is before
    assert shelf.loaded == ["a"]


def test_files_of_one_name_are_refused_until_one_is_gone(path: Path, errors: Callable[[], list[str]]) -> None:
    shelf = of_folder(path.parent)
    (path.parent / "deep").mkdir()
    write(path.parent / "deep" / "a.npz", 3.0)
    with pytest.raises(InputError, match=r"a\.npz and .*a\.npz have the same name"):
        of_folder(path.parent)
    shelf.settle()
    assert len(errors()) == 1
    path.unlink()
    shelf.settle()
    assert weight(shelf.get("a")) == pytest.approx(4.5, abs=0.1)


def test_a_broken_newcomer_is_not_served(path: Path, errors: Callable[[], list[str]]) -> None:
    shelf = of_folder(path.parent)
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), path.with_name("new.pkl"))
    shelf.settle()
    (said,) = errors()
    assert said.startswith("model new is not served: ")
    assert "--trust-pickle" in said
    assert shelf.names == ["a"]
    path.with_name("new.pkl").unlink()
    write(path.with_name("new.npz"), 3.0)
    shelf.settle()
    assert shelf.names == ["a", "new"]


def test_what_is_said_of_single_models_of_a_folder_holds_for_those_that_come(path: Path) -> None:
    named = ModelSource("b", path, input_range=(0.0, 2.0))
    folder = ModelFolder(path.parent, (named,), FAST)
    shelf = Shelf(lambda: folder_sources(folder))
    write(path.with_name("b.npz"), 1.0)
    shelf.library.reload()
    assert shelf.get("a").model.grid.maximum.max() == 1.0
    assert shelf.get("b").model.grid.maximum.max() == 2.0


def test_an_old_engine_lives_as_long_as_its_last_item(path: Path) -> None:
    shelf = of_files(path)
    engine = shelf.get("a").engines[0]
    header = ItemHeader(
        model="a",
        config_id="",
        layout=engine.offer.layout,
        parameter_set=engine.offer.parameters.parameter_set.name,
        row_count=1,
        ciphertext_count=1,
    )
    scoring, old = engine.begin(header, ANONYMOUS.name), weakref.ref(engine)
    del engine
    write(path, 3.0)
    shelf.library.reload()
    assert old() is not None
    del scoring
    assert old() is None


# Previous versions


def kept(path: Path, keep_seconds: float, previous: Sequence[ModelSource] = ()) -> tuple[ModelLibrary, list[int]]:
    """A library that keeps previous versions, and how many were in memory at each load."""
    alive, counts = weakref.WeakSet[Any](), list[int]()

    def load(source: ModelSource) -> ServedModel:
        counts.append(len(alive))
        loaded = load_source(source, trust_pickle=False, limits=LIMITS)
        alive.add(loaded.engines[0])
        return loaded

    source = dataclasses.replace(FAST, name=path.stem, path=path)
    return ModelLibrary(lambda: [source], load, previous=previous, keep_seconds=keep_seconds), counts


def ids(library: ModelLibrary) -> tuple[str, str]:
    current, previous = library.models.versions("a")[:2]
    return current.model.config_id, previous.model.config_id if previous else ""


def test_the_version_that_is_replaced_is_kept_and_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library, counts = kept(path, 3600.0)
    seen = [ids(library)[0]]
    with caplog.at_level(logging.INFO):
        for slope in (3.0, 5.0, 7.0):
            write(path, slope)
            library.reload()
            assert ids(library)[1] == seen[-1]
            seen.append(ids(library)[0])
    assert len(set(seen)) == 4
    assert counts == [0, 1, 1, 1], "no more than two versions are in memory while another is loaded"
    assert "is served too, for 3600 s" in caplog.text
    assert "is served no longer" in caplog.text
    os.utime(path)
    library.reload()
    assert ids(library)[1] == seen[-2], "nothing has changed"


def test_without_time_none_is_kept(path: Path) -> None:
    library, _ = kept(path, 0.0)
    write(path, 3.0)
    library.reload()
    assert ids(library)[1] == ""
    assert library.end_previous() is None


def test_a_version_that_is_kept_is_freed_when_its_time_is_over(path: Path) -> None:
    library, _ = kept(path, 0.2)
    old = weakref.ref(library.models.versions("a")[0].engines[0])
    write(path, 3.0)
    library.reload()
    seconds = library.end_previous()
    assert seconds is not None
    assert 0.0 < seconds <= 0.2
    assert old() is not None
    time.sleep(seconds)
    assert library.end_previous() is None
    assert old() is None
    assert ids(library)[1] == ""


def test_the_thread_that_reloads_ends_previous_versions_by_itself(path: Path) -> None:
    for interval in (None, 60.0):
        write(path, 1.0)
        library, _ = kept(path, 0.3)
        old = weakref.ref(library.models.versions("a")[0].engines[0])
        reloader = Reloader(library, interval)
        write(path, 3.0)
        reloader.reload()
        wait_until(lambda library=library: ids(library)[1] != "")  # type: ignore[misc]
        wait_until(lambda old=old: old() is None)  # type: ignore[misc]
        reloader.close()


def test_a_broken_file_ends_the_previous_version_and_no_other(path: Path) -> None:
    """It went before the file was loaded, so that there was room for it."""
    library, _ = kept(path, 3600.0)
    write(path, 3.0)
    library.reload()
    current = ids(library)[0]
    path.write_bytes(b"no model")
    library.reload()
    assert ids(library) == (current, "")


def test_a_fresh_library_serves_the_previous_version_from_the_start(path: Path) -> None:
    before, _ = kept(path, 0.0)
    write(old := path.with_name("old.npz"), 1.0)
    write(path, 3.0)
    source = dataclasses.replace(FAST, name="a", path=old)
    library, _ = kept(path, 3600.0, [source])
    assert ids(library)[1] == ids(before)[0]
    write(path, 5.0)
    library.reload()
    assert ids(library)[1] != ids(before)[0], "it is followed by the one that is replaced"


def test_a_previous_version_is_loaded_by_the_same_rules(path: Path) -> None:
    write(old := path.with_name("old.npz"), 1.0)
    source = dataclasses.replace(FAST, name="a", path=old)
    for faulty, error, text in (
        (dataclasses.replace(source, sha256="0" * 64), ModelFileError, "SHA-256"),
        (dataclasses.replace(source, path=path.with_name("missing.npz")), ModelFileError, "missing"),
        (dataclasses.replace(source, max_score_error=1e-30), PlanError, "old"),
        (dataclasses.replace(source, name="b"), InputError, "not served"),
    ):
        with pytest.raises(error, match=text):
            kept(path, 3600.0, [faulty])
    library, _ = kept(path, 3600.0, [dataclasses.replace(source, path=path)])
    assert ids(library)[1] == "", "the same version twice needs no memory"


def test_an_error_names_the_file_of_its_model(tmp_path: Path) -> None:
    """The operator of several models must not have to guess."""
    write(path := tmp_path / "a.npz", 1.0)
    np.save(rows := tmp_path / "rows.npy", np.ones((2, 3)))
    faulty = [
        ModelSource("a", path),
        ModelSource("a", path, input_range=(1.0, 0.0)),
        ModelSource("a", path, calibration=rows),
        ModelSource("a", path, input_range=(0.0, 1.0), max_score_error=1e-30),
    ]
    for source in faulty:
        with pytest.raises((InputRangeError, PlanError), match=r"a\.npz: "):
            load_source(source, trust_pickle=False, limits=LIMITS)


def test_calibration_rows_are_bounded(path: Path) -> None:
    rows = path.with_name("rows.npy")
    with rows.open("wb") as file:
        file.truncate(MAX_CALIBRATION_BYTES + 1)
    with pytest.raises(InputRangeError, match=r"rows\.npy has 2,147,483,649 bytes of calibration rows, and at most"):
        load_source(ModelSource("a", path, calibration=rows), trust_pickle=False, limits=LIMITS)


@pytest.mark.parametrize("content", [b"", b"1,2\n", b"\x93NUMPY"])
def test_no_error_advises_to_allow_pickles(tmp_path: Path, content: bytes) -> None:
    write(path := tmp_path / "a.npz", 1.0)
    (rows := tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(InputRangeError, match=r"rows in .*rows\.npy: the file is not a \.npy file") as caught:
        load_source(ModelSource("a", path, calibration=rows), trust_pickle=False, limits=LIMITS)
    assert "pickle" not in str(caught.value)
