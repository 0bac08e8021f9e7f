"""`sealserve predict --resume`: an interrupted run continues where it stopped.

It continues only with the options and files that it began with.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve.cli.main import main
from sealserve.cli.predictions_file import PredictionsFile
from sealserve.client import Client
from sealserve.errors import InputError, InternalError, OutOfRangeError, ReplyError, UnavailableError
from sealserve.he.layouts import LAYOUTS
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, ROOT, linear, running_server, served

ORIGIN = {"model": ["line", "1"], "method": "predict"}


class Run:
    """A command that predicts digits, and where its results go."""

    def __init__(self, address: str, folder: Path, suffix: str) -> None:
        self.output = folder / f"scores{suffix}"
        self._command = ["predict", "--address", address, "--method", "decision_function", "--layout", "row"]
        self._command += ["--input", str(folder / "rows.npy"), "--output", str(self.output)]

    def __call__(self, *more: str) -> int:
        return main([*self._command, *more])

    @property
    def scores(self) -> Any:
        return np.load(self.output) if self.output.suffix == ".npy" else np.loadtxt(self.output, delimiter=",")


@pytest.fixture(params=[".npy", ".csv"])
def run(request: pytest.FixtureRequest, digits_server: str, digits_model: Digits, tmp_path: Path) -> Run:
    np.save(tmp_path / "rows.npy", digits_model.X)
    return Run(digits_server, tmp_path, request.param)


@pytest.fixture
def breaking_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], list[int]]:
    """Make streams end with an error after some results; return each stream's number of rows."""
    sent: list[int] = []
    whole = Client.stream

    def broken_after(count: int, error: BaseException) -> list[int]:
        def stream(self: Client, rows: Any, **options: Any) -> Iterator[tuple[int, Any]]:
            sent.append(len(rows))
            for number, result in enumerate(whole(self, rows, **options)):
                if number == count:
                    raise error
                yield result

        monkeypatch.setattr(Client, "stream", stream)
        return sent

    return broken_after


@pytest.mark.parametrize("error", [UnavailableError("gone"), KeyboardInterrupt()], ids=["no service", "Ctrl-C"])
def test_what_is_there_is_not_sent_again(
    run: Run,
    digits_model: Digits,
    breaking_after: Callable[[int, BaseException], list[int]],
    error: BaseException,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent = breaking_after(100, error)
    try:
        assert run() != 0
    except KeyboardInterrupt:
        assert isinstance(error, KeyboardInterrupt)
    assert "continue with --resume" in capsys.readouterr().err
    assert not run.output.exists()
    breaking_after(1000, error)
    assert run("--resume") == 0
    total = len(digits_model.X)
    assert sent[0] == total
    assert total - 100 <= sent[1] < total - 50, "all that is there in a row is kept"
    assert np.abs(run.scores - digits_model.scores).max() < 0.01
    assert sorted(path.name for path in run.output.parent.iterdir()) == ["rows.npy", run.output.name]


def test_a_run_without_resume_begins_anew(
    run: Run, digits_model: Digits, breaking_after: Callable[[int, BaseException], list[int]]
) -> None:
    breaking_after(100, UnavailableError("gone"))
    assert run() == 1
    sent = breaking_after(1000, UnavailableError("gone"))
    assert run() == 0
    assert sent == [len(digits_model.X)] * 2
    assert np.abs(run.scores - digits_model.scores).max() < 0.01


def test_there_is_nothing_to_resume(run: Run, digits_model: Digits) -> None:
    assert run("--resume") == 0
    assert np.abs(run.scores - digits_model.scores).max() < 0.01


@pytest.mark.parametrize("change", ["input file", "model", "method"])
def test_what_was_begun_with_something_else(
    change: str,
    digits_server: str,
    digits_model: Digits,
    tmp_path: Path,
    breaking_after: Callable[[int, BaseException], list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "rows.npy", digits_model.X)
    run, address = Run(digits_server, tmp_path, ".npy"), digits_server
    breaking_after(100, UnavailableError("gone"))
    assert run() == 1
    more = ["--resume"]
    if change == "method":
        more += ["--method", "predict_proba"]
    if change == "input file":
        os.utime(tmp_path / "rows.npy", ns=(0, 0))
    other = served(
        "digits", LogisticRegression(C=1e-3, max_iter=500).fit(digits_model.X, digits_model.scores.argmax(axis=1))
    )
    with running_server(ModelRegistry([other])) as other_address:
        if change == "model":
            address = other_address
        assert run("--address", address, *more) == 1
    assert f"the {change} changed; start again without --resume" in capsys.readouterr().err


def test_resume_needs_a_file(digits_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--address", digits_server, "--input", str(tmp_path / "rows.npy"), "--resume"]) == 1
    assert "needs --output" in capsys.readouterr().err


def test_rows_that_came_ahead_may_come_again(tmp_path: Path) -> None:
    path, like = tmp_path / "out.npy", np.zeros((1, 2))
    file = PredictionsFile(path, like, 5, ORIGIN, resume=False)
    for index in (0, 1, 4, 3):
        file.put(index, [index, 0.5])
    file.save()
    assert file.first == 2
    file = PredictionsFile(path, like, 5, ORIGIN, resume=True)
    assert file.first == 2
    for index in (2, 3, 4):
        file.put(index, [index, 0.5])
    file.save()
    assert file.first == 5
    file.finish()
    assert np.load(path).tolist() == [[index, 0.5] for index in range(5)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.npy"]


def test_a_failed_row_is_answered_unless_the_service_failed_it(tmp_path: Path) -> None:
    path, like = tmp_path / "out.npy", np.zeros(1)
    file = PredictionsFile(path, like, 20, ORIGIN, resume=False)
    for index in range(10):
        file.put(index, OutOfRangeError(f"bad {index}") if index % 2 else float(index))
    file.put(10, ReplyError())
    file.put(11, InternalError("x"))
    file.put(12, OutOfRangeError("bad 12"))
    file.save()
    assert (file.first, file.failed.count) == (11, 8)
    with pytest.raises(InputError, match="8 of 20 rows failed; the end"):
        file.failed.raise_if_any(20, "the end")

    file = PredictionsFile(path, like, 20, ORIGIN, resume=True)
    assert (file.first, file.failed.count) == (11, 6), "those before the first row without an answer"
    assert file.failed.first == [(index, f"bad {index}") for index in (1, 3, 5, 7, 9)]
    for index in range(11, 19):
        file.put(index, OutOfRangeError("bad") if index == 13 else float(index))
    file.save()
    file = PredictionsFile(path, like, 20, ORIGIN, resume=True)
    assert (file.first, file.failed.count) == (19, 7), "counted once, in whichever run"
    assert np.load(tmp_path / ".out.npy.partial")[14:19].tolist() == [14.0, 15.0, 16.0, 17.0, 18.0]


def test_a_run_with_failed_rows_is_not_continued_with_other_clipping(
    digits_server: str, digits_model: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = digits_model.X[:5].copy()
    rows[3, 3] = 2.0
    np.save(tmp_path / "rows.npy", rows)
    run = Run(digits_server, tmp_path, ".npy")
    assert run() == 1
    assert run("--resume", "--clip") == 1
    assert "the clipping changed; start again without --resume" in capsys.readouterr().err
    assert run("--resume") == 1
    shown = capsys.readouterr().err
    assert "row 3: feature 3 is outside" in shown
    assert "1 of 5 rows failed; nothing was written" in shown
    assert run("--clip") == 0
    assert run.scores.shape == (5, 10)


def test_no_rows_at_all(tmp_path: Path) -> None:
    PredictionsFile(tmp_path / "out.npy", np.zeros(1), 0, ORIGIN, resume=True).finish()
    assert np.load(tmp_path / "out.npy").shape == (0,)


@pytest.mark.parametrize("progress", ["", "{", "[]", '{"origin": {}}', '{"origin": {}, "first": "x"}'])
def test_a_broken_progress_file(tmp_path: Path, progress: str) -> None:
    (tmp_path / ".out.npy.progress").write_text(progress)
    with pytest.raises(InputError, match="start again without --resume"):
        PredictionsFile(tmp_path / "out.npy", np.zeros(1), 5, ORIGIN, resume=True)


@pytest.mark.parametrize("first", [-1, 6])
def test_a_progress_beyond_the_rows_is_none(tmp_path: Path, first: int) -> None:
    PredictionsFile(tmp_path / "out.npy", np.zeros(1), 5, ORIGIN, resume=False).save()
    (tmp_path / ".out.npy.progress").write_text(json.dumps({"origin": ORIGIN, "first": first}))
    assert PredictionsFile(tmp_path / "out.npy", np.zeros(1), 5, ORIGIN, resume=True).first == 0


@pytest.mark.slow
def test_a_killed_run_goes_on(digits_server: str, digits_model: Digits, tmp_path: Path) -> None:
    rows = np.tile(digits_model.X, (40, 1))
    np.save(tmp_path / "rows.npy", rows)
    command = ["predict", "--address", digits_server, "--layout", "row", "--input", str(tmp_path / "rows.npy")]
    command += ["--output", str(tmp_path / "labels.npy")]
    progress = tmp_path / ".labels.npy.progress"
    with subprocess.Popen([sys.executable, "-m", "sealserve.cli.main", *command], cwd=ROOT) as process:
        deadline = time.monotonic() + HANG_SECONDS
        while not (progress.exists() and json.loads(progress.read_text())["first"]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    first = json.loads(progress.read_text())["first"]
    assert 0 < first < len(rows)
    assert main([*command, "--resume"]) == 0
    assert np.load(tmp_path / "labels.npy").tolist() == np.tile(digits_model.scores.argmax(axis=1), 40).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    """Rows of a file are read as they are needed, in columns, and progress is shown.

    Every score is within the proven error.
    """
    generator = np.random.default_rng(8)
    weights, features = generator.normal(size=(3, 16)), 16
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float64, (count, features))
    for first in range(0, len(rows), 100_000):
        rows[first : first + 100_000] = generator.integers(0, 256, (100_000, features)) / 255
    rows.flush()
    model = served("wide", linear(weights))
    with running_server(ModelRegistry([model])) as address:
        command = ["predict", "--address", address, "--input", str(tmp_path / "rows.npy"), "--progress"]
        assert main([*command, "--output", str(tmp_path / "scores.npy")]) == 0
    shown = capsys.readouterr().err
    assert f"{count:,} rows in" in shown
    assert "MB up" in shown
    assert "row/s" in shown
    scores = np.load(tmp_path / "scores.npy", mmap_mode="r")
    column = next(offer for offer in model.model.offers if offer.layout is LAYOUTS["column"])
    for first in range(0, len(rows), 100_000):
        part = slice(first, first + 100_000)
        assert np.abs(scores[part] - rows[part] @ weights.T).max() <= column.weight_rounding_error_bound
