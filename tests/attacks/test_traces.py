"""What a service sees of a client: the same, whatever the rows and the replies hold.

A hostile service records all calls and messages. It may break calls, change its model and lose keys
as it likes. It sees the same lengths in the same order, whether it accepts the client's rows or
describes a range that refuses them, and whether its replies pass the client's checks or not.
"""

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sealserve.client
from sealserve._codec.batches import Result
from sealserve._codec.codec import RowCodec
from sealserve.aio import AsyncClient
from sealserve.cli import predictions_file
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import ReplyError, SealserveError
from sealserve.he.quantization import Quantized
from sealserve.protocol.model import Model
from tests.support.observed_calls import (
    CALLS,
    FEATURES,
    GOOD,
    OPEN,
    PLAIN,
    VARIANTS,
    Faults,
    Rows,
    of_rows,
)
from tests.support.recording_service import (
    Event,
    RecordingService,
    accepted,
    described,
    recording_service,
)
from tests.support.serving import HANG_SECONDS, linear, registered_keys, served
from tests.support.waiting import wait_until

PRIVATE = served("line", linear(np.ones((2, FEATURES))), keys=registered_keys(), hiding_bits=20).model


# What a user does with asyncio


async def _all_of(client: AsyncClient, rows: Any, **options: Any) -> None:
    async for _ in client.stream(rows, **options):
        pass


async def _sent_by(client: AsyncClient, rows: Rows, errors: Any = "raise") -> None:
    await client.register_key()
    await client.decrypt(await client.send(await client.encrypt(rows)), errors=errors)


ASYNC_CALLS: dict[str, Callable[[AsyncClient, Model, Callable[[Rows], Rows]], Any]] = {
    "predict, a row": lambda client, _, spoil: client.predict(spoil(GOOD[:1])),
    "predict, items": lambda client, model, spoil: client.predict(spoil(of_rows(model, 4))),
    "stream, array": lambda client, _, spoil: _all_of(client, spoil(GOOD[:6])),
    "stream, items of two": lambda client, _, spoil: _all_of(client, iter(spoil(GOOD[:6])), rows_per_item=2),
    "send": lambda client, _, spoil: _sent_by(client, spoil(GOOD)),
    "send, returning errors": lambda client, _, spoil: _sent_by(client, spoil(GOOD), "return"),
}


Run = Callable[[RecordingService, Callable[[Rows], Rows]], Any]


def trace_of(run: Run, model: Model, fault: str, variant: Any) -> list[Event]:
    """Return what the service saw."""
    spoil, reply = variant
    answer = Faults(fault, reply)
    with recording_service(model, answer) as service:
        answer.service = service
        with contextlib.suppress(SealserveError):
            run(service, spoil)
    return service.trace


def different(run: Run, model: Model, fault: str) -> list[str]:
    """Return the names of the variants that do not look like the plain one to the service."""
    plain = trace_of(run, model, fault, PLAIN)
    assert len(plain) >= 2
    return [name for name, variant in VARIANTS.items() if trace_of(run, model, fault, variant) != plain]


@pytest.mark.parametrize("call", ["predict, a row", "predict, items", "stream, array"])
def test_what_a_client_notes_of_its_calls_is_the_same(call: str) -> None:
    """By that it chooses what it sends."""
    model = described(OPEN, layout="row")
    found = list[list[int]]()

    def run(service: RecordingService, spoil: Callable[[Rows], Rows]) -> None:
        with Client(service.address, timeout_seconds=HANG_SECONDS) as client:
            try:
                CALLS[call](client, model, spoil)
            finally:
                found.append(sorted(byte_count for byte_count, _, _ in client._connections.transfer_time.noted))

    for variant in (PLAIN, *VARIANTS.values()):
        trace_of(run, model, "none", variant)
    assert found[0]
    assert found.count(found[0]) == len(VARIANTS) + 1


def refuse_before_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients refuse rows as they did: before anything is sent."""
    quantize = RowCodec.quantize

    def refusing(self: RowCodec, rows: Rows) -> Quantized:
        quantized = quantize(self, rows)
        if quantized.is_refused.any():
            raise self.refusal(rows)
        return quantized

    monkeypatch.setattr(RowCodec, "quantize", refusing)


BOTH = ("broken", "stale", "two versions")
CASES = [
    *((call, "row", "none", False, OPEN) for call in CALLS),
    *((call, "row", fault, False, OPEN) for call in ("predict, a row", "predict, items") for fault in BOTH),
    *((call, "row", fault, True, OPEN) for call in ("stream, array", "stream, items of two") for fault in BOTH),
    ("predict, items", "column", "none", False, OPEN),
    ("predict, items", "column", "broken", True, OPEN),
    ("stream, array", "column", "stale", False, OPEN),
    ("predict, a row", "row", "key lost", True, PRIVATE),
    ("stream, array", "row", "key lost", False, PRIVATE),
]


@pytest.mark.parametrize(("call", "layout", "fault", "seeded", "model"), CASES)
def test_a_client_looks_the_same(call: str, layout: str, fault: str, seeded: bool, model: Model) -> None:
    model = described(model, layout=layout)

    def run(service: RecordingService, spoil: Callable[[Rows], Rows]) -> None:
        with Client(service.address, layout=layout, seeded=seeded, timeout_seconds=HANG_SECONDS) as client:
            CALLS[call](client, model, spoil)

    assert different(run, model, fault) == []


@pytest.mark.parametrize("call", ["predict, a row", "predict, items", "stream, array", "send"])
def test_a_client_that_refuses_rows_before_it_sends_does_not(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These are the variants that a service told apart."""
    refuse_before_sending(monkeypatch)
    model = described(OPEN, layout="row")

    def run(service: RecordingService, spoil: Callable[[Rows], Rows]) -> None:
        with Client(service.address, timeout_seconds=HANG_SECONDS) as client:
            CALLS[call](client, model, spoil)

    assert different(run, model, "none") == ["rows refused", "all rows refused", "rows and replies refused"]


ASYNC_CASES = [
    *((call, "none") for call in ASYNC_CALLS),
    ("predict, a row", "stale"),
    ("predict, items", "broken"),
    ("stream, array", "stale"),
    ("predict, a row", "two versions"),
    ("stream, array", "two versions"),
]


@pytest.mark.parametrize(("call", "fault"), ASYNC_CASES)
def test_an_asynchronous_client_looks_the_same(call: str, fault: str) -> None:
    model = described(OPEN, layout="row")

    async def predict(address: str, spoil: Callable[[Rows], Rows]) -> None:
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS) as client:
            await ASYNC_CALLS[call](client, model, spoil)

    assert different(lambda service, spoil: asyncio.run(predict(service.address, spoil)), model, fault) == []


def command_of(folder: Path) -> Run:
    """`sealserve predict`, and another run with --resume if it fails."""
    file, output = folder / "rows.npy", folder / "labels.npy"

    def run(service: RecordingService, spoil: Callable[[Rows], Rows]) -> None:
        for path in folder.iterdir():
            path.unlink()
        np.save(file, spoil(of_rows(service.model, 4)))
        command = ["predict", "--address", service.address, "--input", str(file), "--output", str(output)]
        main(command)
        service.trace.append(("next run",))
        if not output.exists():
            main([*command, "--resume"])

    return run


@pytest.mark.parametrize("fault", ["none", "stale", "broken"])
def test_a_command_looks_the_same_and_asks_for_no_row_again(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = described(OPEN, layout="row"), command_of(tmp_path)
    plain = trace_of(run, model, fault, PLAIN)
    capsys.readouterr()
    for name, variant in VARIANTS.items():
        trace = trace_of(run, model, fault, variant)
        last = trace.index(("next run",))
        assert {event[0] for event in trace[last + 1 :]} <= {"GetModel"}, name
        assert trace[:last] == plain[:last], name
        errors = capsys.readouterr().err
        assert errors.count("rows failed; nothing was written") == 2, "the second run says so again"


@pytest.mark.parametrize("is_old", [False, True])
def test_an_interrupted_command_goes_on_at_the_same_row(
    is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one began again at the first row that had failed."""
    if is_old:
        monkeypatch.setattr(predictions_file, "_ANSWERS", ())
    told_apart = different(command_of(tmp_path), described(OPEN, layout="row"), "denied")
    assert told_apart == (list(VARIANTS) if is_old else [])


# Streams end when they are left, not when memory is collected


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sealserve-reader"]


def has_ended(service: RecordingService) -> bool:
    return bool(service.sent) and all(sent.has_ended.is_set() for sent in service.sent)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("raises", [False, True])
def test_a_stream_that_its_caller_leaves_ends_at_once(raises: bool) -> None:
    """Also while the error with which the caller left it is kept."""
    model, answer, kept = described(OPEN, layout="row"), Faults("none", accepted), None
    with recording_service(model, answer) as service, Client(service.address, timeout_seconds=HANG_SECONDS) as client:
        answer.service = service
        try:
            for _ in client.stream(itertools.repeat(GOOD[0])):
                if raises:
                    raise ReplyError
                break
        except ReplyError as error:
            kept = error
        assert readers() == []
        wait_until(lambda: has_ended(service))
    assert (kept is not None) == raises


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("closes", [False, True])
def test_an_asynchronous_stream_that_its_caller_leaves_ends_soon(raises: bool, closes: bool) -> None:
    model, answer = described(OPEN, layout="row"), Faults("none", accepted)

    async def take_one(client: AsyncClient) -> None:
        if closes:
            async with aclosing(client.stream(itertools.repeat(GOOD[0]))) as results:
                async for _ in results:
                    if raises:
                        raise ReplyError
                    break
        else:
            async for _ in client.stream(itertools.repeat(GOOD[0])):
                if raises:
                    raise ReplyError
                break

    async def predict(service: RecordingService) -> BaseException | None:
        kept = None
        async with AsyncClient(service.address, timeout_seconds=HANG_SECONDS) as client:
            try:
                await take_one(client)
            except ReplyError as error:
                kept = error
            deadline = time.monotonic() + HANG_SECONDS
            while not has_ended(service):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        return kept

    with recording_service(model, answer) as service:
        answer.service = service
        kept = asyncio.run(predict(service))
    assert (kept is not None) == raises


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("is_old", [False, True])
def test_predict_closes_its_stream_whatever_becomes_of_the_results(
    is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error holds the frames that it came through: the old client's stream lived as long."""

    def stop_at_the_first(results: Iterator[Result]) -> list[Result]:
        next(results)
        raise ReplyError

    monkeypatch.setattr(sealserve.client, "list", stop_at_the_first, raising=False)
    if is_old:
        monkeypatch.setattr(sealserve.client, "closing", contextlib.nullcontext)
    model, answer = described(OPEN, layout="row"), Faults("none", accepted)
    with recording_service(model, answer) as service, Client(service.address, timeout_seconds=HANG_SECONDS) as client:
        answer.service = service
        with pytest.raises(ReplyError) as kept:
            client.predict(of_rows(model, 50))
        assert bool(readers()) == is_old
        del kept
        gc.collect()
        wait_until(lambda: not readers())
