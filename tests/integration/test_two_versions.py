"""Replicas with two versions of a model side by side, as in every rolling update and every canary.

Two real services of their own, over both of which a client's calls are balanced in turn. No row
fails, whether or not the new replica serves the previous version too. If it does, one retry is
enough.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.protocol.output import Output, Task
from sealserve.steps.arithmetic import Affine
from sealserve.steps.program import Program
from sealserve_service.catalog.registry import ModelRegistry, ServedModel, publish_steps
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, linear, registered_keys, running_server, served, with_limits
from tests.support.step_models import COLUMNS, INTERCEPT, PROGRAM, WEIGHTS, expected_scores, served_with_steps
from tests.support.step_models import FEATURES as FEATURES_OF_STEPS
from tests.support.step_models import ROWS as STEP_ROWS
from tests.support.waiting import wait_until

Rows = NDArray[np.float64]

FEATURES, OPEN_ITEMS, STREAMS = 4, 16, 2
RANDOM = np.random.default_rng(17)
SETTINGS = with_limits(max_open_items=OPEN_ITEMS)
KEYS = registered_keys()
OLD, NEW = (1.0, -1.0, 0.5, 0.25), (4.0, 1.0, -2.0, 1.0)
ROWS = RANDOM.random((400, FEATURES))


def version(weights: tuple[float, ...], hiding_bits: int | None = None, labels: tuple[str, ...] = ()) -> ServedModel:
    model = linear([weights])
    if labels:
        model = dataclasses.replace(model, output=Output(Task.CLASSIFICATION, 1, labels))
    keys = None if hiding_bits is None else KEYS
    return served("line", model, keys=keys, hiding_bits=hiding_bits, limits=SETTINGS.limits)


MODES = {mode: [version(weights, bits) for weights in (OLD, NEW)] for mode, bits in (("open", None), ("private", 20))}


class Mix(NamedTuple):
    """Two replicas, and a client's address of both."""

    address: str
    registries: list[ModelRegistry]
    telemetries: list[Telemetry]

    @property
    def refusals(self) -> int:
        """How many items came for a version that the replica does not serve."""
        labels = {"reason": "StaleConfigError", "limit": "", "tenant": ""}
        values = (each.registry.get_sample_value("sealserve_refusals_total", labels) for each in self.telemetries)
        return int(sum(value or 0.0 for value in values))


@contextlib.contextmanager
def mixed(old: ServedModel, new: ServedModel, *, keeps_previous: bool = False) -> Iterator[Mix]:
    """Run an old replica and a new one."""
    registries, telemetries = [ModelRegistry([old]), ModelRegistry([])], [Telemetry(), Telemetry()]
    registries[1].put(new, old if keeps_previous else None, 3600.0)
    keys = KEYS if new.is_private else None
    with contextlib.ExitStack() as stack:
        addresses = [
            stack.enter_context(running_server(registry, SETTINGS, keys, telemetry))
            for registry, telemetry in zip(registries, telemetries, strict=True)
        ]
        yield Mix(f"ipv4:{','.join(addresses)}", registries, telemetries)


def are_scores(found: Any, rows: Rows) -> bool:
    """Whether each score is that of one of the two versions."""
    scores = np.asarray(found, np.float64).ravel()
    errors = [np.abs(scores - rows @ np.array(weights)) for weights in (OLD, NEW)]
    return len(scores) == len(rows) and bool(np.minimum(*errors).max() < 0.3)


def in_order(results: list[tuple[int, Any]], rows: Rows) -> list[Any]:
    assert sorted(index for index, _ in results) == list(range(len(rows)))
    assert not [result for _, result in results if isinstance(result, Exception)]
    return [result for _, result in sorted(results, key=lambda each: each[0])]


def one_by_one(address: str, rows: Rows) -> Any:
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        return [client.predict(row[None])[0] for row in rows]


def one_by_one_async(address: str, rows: Rows) -> Any:
    async def predict() -> Any:
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS) as client:
            return [(await client.predict(row[None]))[0] for row in rows]

    return asyncio.run(predict())


def from_threads(address: str, rows: Rows) -> Any:
    with Client(address, timeout_seconds=HANG_SECONDS) as client, ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda row: client.predict(row[None])[0], rows))


def streamed(address: str, rows: Rows) -> Any:
    with Client(address, timeout_seconds=HANG_SECONDS, connections=STREAMS) as client:
        return in_order(list(client.stream(rows)), rows)


def streamed_async(address: str, rows: Rows) -> Any:
    async def predict() -> Any:
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS, connections=STREAMS) as client:
            return in_order([result async for result in client.stream(rows)], rows)

    return asyncio.run(predict())


Predict = Callable[[str, Rows], Any]
UNARY: list[Predict] = [one_by_one, one_by_one_async, from_threads]
STREAMED: list[Predict] = [streamed, streamed_async]
in_both_modes = pytest.mark.parametrize("mode", ["open", pytest.param("private", marks=pytest.mark.slow)])
kept_or_not = pytest.mark.parametrize("keeps_previous", [False, True], ids=["one each", "previous too"])


@in_both_modes
@kept_or_not
@pytest.mark.parametrize("predict", UNARY)
def test_no_row_of_many_calls_fails(mode: str, keeps_previous: bool, predict: Predict) -> None:
    rows = ROWS[:100]
    with mixed(*MODES[mode], keeps_previous=keeps_previous) as mix:
        assert are_scores(predict(mix.address, rows), rows)
        if keeps_previous:
            callers = 4 if predict is from_threads else 1
            assert mix.refusals <= callers, "one retry is enough, and for each caller at once"
        elif predict is not from_threads:
            assert len(rows) / 4 <= mix.refusals <= 2 * len(rows), "in turn: the third attempt at the latest"


@in_both_modes
@kept_or_not
@pytest.mark.parametrize("predict", STREAMED)
def test_no_row_of_a_stream_fails(mode: str, keeps_previous: bool, predict: Predict) -> None:
    with mixed(*MODES[mode], keeps_previous=keeps_previous) as mix:
        assert are_scores(predict(mix.address, ROWS), ROWS)
        # What a stream has sent before its replica says which version it serves; and once more if
        # another replica has described its own version then.
        assert mix.refusals <= 2 * STREAMS * OPEN_ITEMS


@kept_or_not
@pytest.mark.parametrize("layout", ["row", "column"])
def test_no_row_of_a_batch_fails(layout: str, keeps_previous: bool) -> None:
    rows = RANDOM.random((9000, FEATURES))
    with (
        mixed(*MODES["open"], keeps_previous=keeps_previous) as mix,
        Client(mix.address, timeout_seconds=HANG_SECONDS, connections=STREAMS, layout=layout) as client,
    ):
        for _ in range(3):
            assert are_scores(client.predict(rows), rows)
            assert are_scores(in_order(list(client.stream(rows, rows_per_item=3000)), rows), rows)


@pytest.mark.slow
@in_both_modes
@kept_or_not
def test_none_of_two_thousand_rows_fails(mode: str, keeps_previous: bool) -> None:
    rows = RANDOM.random((2000, FEATURES))
    with mixed(*MODES[mode], keeps_previous=keeps_previous) as mix:
        assert are_scores(one_by_one(mix.address, rows), rows)
        assert mix.refusals <= (1 if keeps_previous else 2 * len(rows))
        assert are_scores(streamed(mix.address, rows), rows)


@pytest.mark.slow
@in_both_modes
def test_none_of_750_rows_fails_while_versions_change_forty_times(mode: str) -> None:
    old, new = MODES[mode]
    rows, changes = RANDOM.random((750, FEATURES)), 0
    with mixed(old, new) as mix, Client(mix.address, timeout_seconds=HANG_SECONDS) as client:
        for part in np.array_split(rows, 41):
            assert are_scores([client.predict(row[None])[0] for row in part], part)
            registry = mix.registries[changes % 2]
            registry.put(old if registry.versions("line")[0] is new else new)
            changes += 1
    assert changes >= 40


# Versions whose labels differ


def classifiers() -> tuple[ServedModel, ServedModel]:
    return version((1.0, -1.0, 0.0, 0.0), labels=("no", "yes")), version((1.0, -1.0, 0.0, 0.0), labels=("yes", "no"))


@kept_or_not
def test_labels_of_one_call_are_of_one_version(keeps_previous: bool) -> None:
    """More items than one, on several streams: their replicas do not agree on what scores mean."""
    rows = np.tile([[1.0, 0.0, 0.0, 0.0]], (9000, 1))
    with (
        mixed(*classifiers(), keeps_previous=keeps_previous) as mix,
        Client(mix.address, timeout_seconds=HANG_SECONDS, connections=STREAMS, layout="row") as client,
    ):
        assert len(rows) > 2 * client.offer(len(rows)).rows_per_item
        for _ in range(4):
            assert len(set(client.predict(rows))) == 1


def test_a_command_writes_no_labels_of_two_meanings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Streams may all lead to one replica: then all labels are of its version."""
    file, output = tmp_path / "rows.npy", tmp_path / "labels.csv"
    np.save(file, np.tile([[1.0, 0.0, 0.0, 0.0]], (9000, 1)))
    command = ["predict", "--connections", "4", "--layout", "row", "--input", str(file), "--output", str(output)]
    with mixed(*classifiers()) as mix:
        for _ in range(10):
            if main([*command, "--address", mix.address]) != 0:
                break
            assert len(set(output.read_text().split())) == 1
            output.unlink()
    assert "classes changed" in capsys.readouterr().err.splitlines()[-1], "no run met both versions"
    assert not output.exists()
    np.save(file, RANDOM.random((9000, FEATURES)))
    with mixed(*MODES["open"]) as mix:
        assert main([*command, "--address", mix.address]) == 0
    assert are_scores(np.loadtxt(output), np.load(file))


# Programs


def put(path: Path, weights: tuple[float, ...]) -> None:
    """Put a model's file in its place, in one step."""
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez(file, coef=np.array(weights), intercept=np.array(0.0))
    path.with_suffix(".tmp").replace(path)


@pytest.mark.parametrize("weights", ["open", pytest.param("private", marks=pytest.mark.slow)])
def test_fresh_replicas_serve_the_previous_version(tmp_path: Path, weights: str) -> None:
    """They are told its file. The clients of old replicas need no retry, the others one."""
    old, new, log = tmp_path / "old.npz", tmp_path / "new.npz", tmp_path / "log"
    put(old, OLD)
    put(new, NEW)
    shared = ("--input-range", "0,1", "--weights", weights, "--key-store", str(tmp_path / "keys"))
    with (
        serve("--model", f"line={old}", *shared) as first,
        serve("--model", f"line={new}", "--previous", f"line={old}", *shared, log=log) as second,
    ):
        with Client(first.address, timeout_seconds=HANG_SECONDS) as client:
            described = client.model
        assert are_scores(one_by_one(f"ipv4:{first.address},{second.address}", ROWS[:40]), ROWS[:40])
        with Client(second.address, timeout_seconds=HANG_SECONDS) as client:
            assert client.model.version != described.version
            assert [model.version for model in client.models()] == [client.model.version]
    is_warned = "the weights of previous versions are open too" in log.read_text()
    assert is_warned == (weights == "open")


@pytest.mark.slow
def test_a_previous_version_ends_when_its_time_is_over(tmp_path: Path) -> None:
    path, log = tmp_path / "line.npz", tmp_path / "log"
    put(path, OLD)
    options = ("--model", str(path), "--input-range", "0,1", "--keep-previous", "1.5", "--log-level", "info")
    with serve(*options, log=log) as program, Client(program.address, timeout_seconds=HANG_SECONDS) as client:
        assert are_scores(client.predict(ROWS), ROWS)
        before = client.model.config_id
        put(path, NEW)
        program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "is served too, for 1.5 s" in log.read_text())
        client.predict(ROWS[:1])
        assert client.model.config_id == before, "its version is served still"
        wait_until(lambda: "is served no longer" in log.read_text())
        np.testing.assert_allclose(client.predict(ROWS).ravel(), ROWS @ np.array(NEW), atol=0.3)
        assert client.model.config_id != before


@pytest.mark.slow
def test_a_stream_goes_on_through_an_update_of_its_replicas(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    put(path, OLD)
    options = ("--model", str(path), "--input-range", "0,1", "--keep-previous", "0.3")
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(serve(*options)) for _ in range(2)]
        address = f"ipv4:{','.join(program.address for program in programs)}"
        client = stack.enter_context(Client(address, timeout_seconds=HANG_SECONDS, connections=STREAMS))
        is_over, collected = threading.Event(), list[tuple[int, Any]]()

        def rows() -> Iterator[Rows]:
            for index in itertools.count():
                if is_over.wait(0.002):
                    return
                yield ROWS[index % len(ROWS)]

        def is_new(result: tuple[int, Any]) -> bool:
            index, score = result
            return bool(abs(float(score) - ROWS[index % len(ROWS)] @ np.array(NEW)) < 0.05)

        def collect() -> None:
            for result in client.stream(rows()):
                collected.append(result)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        wait_until(lambda: len(collected) > 50)
        put(path, NEW)
        for program in programs:
            count = len(collected)
            program.process.send_signal(signal.SIGHUP)
            wait_until(lambda count=count: len(collected) > count + 50)  # type: ignore[misc]
        wait_until(lambda: all(map(is_new, collected[-20:])))
        is_over.set()
        thread.join(HANG_SECONDS)
    order = in_order(collected, np.zeros((len(collected), 1)))
    assert are_scores(order, ROWS[np.arange(len(order)) % len(ROWS)])


# Published steps


@pytest.mark.parametrize("keeps_previous", [False, True], ids=["new only", "with the previous version"])
def test_each_version_is_scored_with_its_own_steps(keeps_previous: bool) -> None:
    """A replica may be asked for steps that only the other one has."""
    halving = Program(
        PROGRAM.columns, [*PROGRAM.steps, Affine([2], divide=np.array([2.0]))], [6, 7, 9, 14, *range(10, 14)]
    )
    old, new = served_with_steps(), publish_steps(served("steps", linear(WEIGHTS, INTERCEPT)), COLUMNS, halving)
    assert old.model.steps_id != new.model.steps_id
    of_old, of_new = expected_scores(), FEATURES_OF_STEPS * [1, 1, 1, 0.5, 1, 1, 1, 1] @ WEIGHTS.T + INTERCEPT
    tolerance = max(version.model.offers[0].score_error_bound for version in (old, new))
    assert np.abs(of_old - of_new).max() > 4 * tolerance
    found = set[str]()
    with mixed(old, new, keeps_previous=keeps_previous) as mix:
        for _ in range(5):
            with Client(mix.address, timeout_seconds=HANG_SECONDS) as client:
                for _ in range(4):
                    scores = client.predict(STEP_ROWS)
                    errors = {"old": np.abs(scores - of_old).max(), "new": np.abs(scores - of_new).max()}
                    version_found = min(errors, key=lambda name: errors[name])
                    assert errors[version_found] <= tolerance
                    found.add(version_found)
    assert found
