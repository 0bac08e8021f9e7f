"""Models that change under a running service: by SIGHUP, by --watch, in folders.

Clients follow the change, and items in flight finish.
"""

import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sealserve.client import Client
from sealserve.errors import ModelNotFoundError, StaleConfigError
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.reloader import Reloader
from sealserve_service.catalog.sources import load_source
from sealserve_service.settings.model_source import ModelSource
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.programs import Program, serve
from tests.support.raw import Message, RawClient
from tests.support.serving import HANG_SECONDS, LIMITS, ROOT, running_server
from tests.support.waiting import wait_until

ROW = [[1.0, 0.5]]
IN_RANGE = ("--input-range", "0,1", "--input-step", "0.0625", "--log-level", "info")
LOOKS = 2.5  # seconds in which --watch has looked twice


def put(path: Path, slope: float) -> None:
    """Put a model whose score of ROW is the slope in its place, in one step."""
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez(file, coef=np.array([slope, 0.0]), intercept=np.array(0.0))
    path.with_suffix(".tmp").replace(path)


def is_slope(score: Any, slope: float) -> bool:
    """Whether a score of ROW is that of a model of `put`; an error is not."""
    return not isinstance(score, Exception) and abs(float(np.squeeze(score)) - slope) < 0.01


def lines(program: Program, *texts: str) -> list[str]:
    """The lines of the log that hold all the texts."""
    return [line for line in program.said if all(text in line for text in texts)]


@pytest.mark.parametrize("processes", [1, 2])
def test_clients_follow_a_model_that_is_changed_by_sighup(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "line.npz"
    put(path, 1.0)
    options = ("--model", str(path), *IN_RANGE, "--processes", str(processes))
    with (
        serve(*options, log=tmp_path / "log") as program,
        Client(program.address, timeout_seconds=HANG_SECONDS) as streaming,
        Client(program.address, timeout_seconds=HANG_SECONDS) as calling,
    ):
        results, is_over = list[object](), threading.Event()

        def rows() -> Iterator[list[float]]:
            while not is_over.wait(0.001):
                yield ROW[0]

        def stream() -> None:
            results.extend(result for _, result in streaming.stream(rows()))

        thread = threading.Thread(target=stream, daemon=True)
        thread.start()
        wait_until(lambda: bool(results))
        assert is_slope(calling.predict(ROW), 1.0)
        before = calling.model
        put(path, 2.0)
        program.process.send_signal(signal.SIGHUP)
        scores = list[object]()

        def have_changed() -> bool:
            scores.extend(calling.predict(ROW))
            return len(lines(program, "model line is served")) == processes

        wait_until(have_changed)
        assert is_slope(calling.predict(ROW), 2.0)
        is_over.set()
        thread.join(HANG_SECONDS)

        unexpected = [score for score in (*results, *scores) if not (is_slope(score, 1.0) or is_slope(score, 2.0))]
        assert not unexpected, "errors, or scores of no version"
        assert is_slope(results[0], 1.0)
        for _ in range(4 * processes):
            with Client(program.address, timeout_seconds=HANG_SECONDS) as client:
                assert is_slope(client.predict(ROW), 2.0)
                now = client.model
                assert now.version != before.version
        assert lines(program, f"version {before.version} -> {now.version}")

        for _ in range(300):
            program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(lines(program, "model line has not changed")) >= processes)
        assert is_slope(calling.predict(ROW), 2.0)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(HANG_SECONDS) == 0


def test_an_item_that_was_begun_on_the_old_model_ends_on_it(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    put(path, 1.0)
    with (
        serve("--model", str(path), *IN_RANGE, log=tmp_path / "log") as program,
        RawClient(program.address) as raw,
        raw.conversation() as conversation,
    ):
        begun = raw.item(1, np.array(ROW))
        conversation.send(Message(item_id=1, header=begun.header))
        conversation.send(raw.item(2, np.array(ROW)))
        item_id, scores = next(conversation.answers)
        assert item_id == 2, "so the service has read the header of 1"
        assert is_slope(scores, 1.0)
        put(path, 2.0)
        program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bool(lines(program, "model line is served")))
        conversation.send(raw.item(3, np.array(ROW)))
        item_id, error = next(conversation.answers)
        assert item_id == 3
        assert isinstance(error, StaleConfigError)
        conversation.send(Message(item_id=1, chunk=begun.chunk))
        item_id, scores = next(conversation.answers)
        assert item_id == 1
        assert is_slope(scores, 1.0)


def test_a_sighup_that_comes_while_processes_start_reaches_them(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    put(path, 1.0)
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--model", str(path), *IN_RANGE]
    command += ["--address", "127.0.0.1:0", "--processes", "2", "--weights", "open"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        try:
            wait_until(lambda: bool(psutil.Process(process.pid).children()))
            process.send_signal(signal.SIGHUP)
            assert process.stdout
            program = Program(process.stdout.readline().split()[-1], process, log)
            wait_until(lambda: len(lines(program, "model line has not changed")) == 2)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def watching(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A service that watches a folder; each test has a model of its own in it."""
    for name in ("replaced", "slowly", "broken", "gone"):
        put(folder / f"{name}.npz", 1.0)
    log = tmp_path_factory.mktemp("log") / "log"
    with serve(
        "--watch", *IN_RANGE, "--input-range", "replaced=0,2", log=log, AZUREML_MODEL_DIR=str(folder)
    ) as program:
        yield program


def test_a_watched_file_is_followed(watching: Program, folder: Path) -> None:
    with Client(watching.address, model="replaced", timeout_seconds=HANG_SECONDS) as client:
        assert is_slope(client.predict(ROW), 1.0)
        put(folder / "replaced.npz", 2.0)
        wait_until(lambda: is_slope(client.predict(ROW), 2.0))
        assert client.model.grid.maximum.max() == 2.0, "what is said of one model of the folder holds"
    assert len(lines(watching, "model replaced is served")) == 1


def test_a_file_that_is_written_slowly_is_loaded_when_it_is_whole(watching: Program, folder: Path) -> None:
    path = folder / "slowly.npz"
    put(path.with_suffix(".whole"), 2.0)
    data = path.with_suffix(".whole").read_bytes()
    with Client(watching.address, model="slowly", timeout_seconds=HANG_SECONDS) as client:
        with path.open("wb") as file:
            for begin in range(0, len(data), len(data) // 8):
                assert is_slope(client.predict(ROW), 1.0)
                file.write(data[begin : begin + len(data) // 8])
                file.flush()
                time.sleep(0.2)
        wait_until(lambda: is_slope(client.predict(ROW), 2.0))


@pytest.mark.slow
def test_a_broken_file_is_reported_once_and_the_old_model_stays(watching: Program, folder: Path) -> None:
    path = folder / "broken.npz"
    with Client(watching.address, model="broken", timeout_seconds=HANG_SECONDS) as client:
        version = client.model.version
        path.write_bytes(path.read_bytes()[:-30])
        wait_until(lambda: bool(lines(watching, "ERROR", f"model broken stays at version {version}", str(path))))
        time.sleep(LOOKS)
        assert len(lines(watching, "ERROR", "model broken")) == 1
        assert is_slope(client.predict(ROW), 1.0)
        put(path, 2.0)
        wait_until(lambda: is_slope(client.predict(ROW), 2.0))


def test_a_folder_loses_and_gains_models(watching: Program, folder: Path) -> None:
    def names() -> set[str]:
        return {model.name for model in client.models()}

    with Client(watching.address, model="gone", timeout_seconds=HANG_SECONDS) as client:
        assert is_slope(client.predict(ROW), 1.0)
        (folder / "gone.npz").unlink()
        put(folder / "come.npz", 3.0)
        wait_until(lambda: "gone" not in names() and "come" in names())
        with pytest.raises(ModelNotFoundError):
            client.predict(ROW)
    with Client(watching.address, model="come", timeout_seconds=HANG_SECONDS) as client:
        assert is_slope(client.predict(ROW), 3.0)


def test_an_old_model_is_freed_with_its_last_item(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    put(path, 1.0)
    library = ModelLibrary(
        lambda: [ModelSource("line", path, input_range=(0.0, 1.0))],
        lambda source: load_source(source, trust_pickle=False, limits=LIMITS),
    )
    reloader = Reloader(library, None)
    with running_server(library.models) as address, RawClient(address) as raw, raw.conversation() as conversation:
        chosen = raw.codec.offer
        served = library.models.get("line", ANONYMOUS)
        old = weakref.ref(served.engine(chosen.layout, chosen.parameters.parameter_set.name))
        del served
        begun = raw.item(1, np.array(ROW))
        conversation.send(Message(item_id=1, header=begun.header))
        conversation.send(raw.item(2, np.array(ROW)))
        assert next(conversation.answers)[0] == 2
        version = library.models.get("line", ANONYMOUS).model.version
        put(path, 2.0)
        reloader.reload()
        wait_until(lambda: library.models.get("line", ANONYMOUS).model.version != version)
        assert old() is not None
        conversation.send(Message(item_id=1, chunk=begun.chunk))
        item_id, scores = next(conversation.answers)
        assert item_id == 1
        assert is_slope(scores, 1.0)
        wait_until(lambda: old() is None)
    reloader.close()
    put(path, 3.0)
    reloader.reload()
    time.sleep(0.2)
    with running_server(library.models) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        assert is_slope(client.predict(ROW), 2.0), "closed, it looks no more"
