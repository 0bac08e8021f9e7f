"""Children forked from a process whose clients are busy: they begin anew, or say why not."""

import asyncio
import functools
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.errors import UnavailableError, UsageError
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, ROOT, server_process

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")
CHILD_SECONDS = 20.0
CHILDREN = 6


ALONE = "SEALSERVE_TESTS_FORK_HERE"


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process of its own, whose children have nothing of other tests.

    Those have left servers and threads in their process, and a child cannot collect what is
    gRPC's.
    """

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        if os.environ.get(ALONE):
            test(**fixtures)
            return
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", f"{__file__}::{test.__name__}"],
            cwd=ROOT,
            env=variables | {ALONE: "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "1 passed" in done.stdout

    return run


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a service in a process of its own: a child of this one has none of its threads."""
    with server_process() as (_, address):
        yield address


def in_child(act: Callable[[], Any]) -> Any:
    """Return what a function returns, or the type of its error, in a forked child."""
    ours, theirs = FORK.Pipe(duplex=False)

    def run() -> None:
        try:
            theirs.send(act())
        except BaseException as error:
            theirs.send(type(error))

    child = FORK.Process(target=run, daemon=True)
    child.start()
    try:
        return ours.recv() if ours.poll(CHILD_SECONDS) else "hangs"
    finally:
        child.kill()
        child.join()


@alone
def test_children_of_a_streaming_parent(address: str, digits_model: Digits) -> None:
    rows, stop = digits_model.X[:2], threading.Event()
    expected = digits_model.estimator.predict(rows).tolist()

    def endless() -> Iterator[Any]:
        while not stop.is_set():
            yield from digits_model.X[:50]

    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        client.predict(rows)
        streaming = threading.Thread(target=lambda: [None for _ in client.stream(endless())], daemon=True)
        streaming.start()
        try:
            answers = [
                in_child(lambda: client.predict(rows, timeout_seconds=CHILD_SECONDS / 2).tolist())
                for _ in range(CHILDREN)
            ]
        finally:
            stop.set()
            streaming.join(HANG_SECONDS)
        assert answers == [expected] * CHILDREN
        assert client.predict(rows).tolist() == expected, "the parent goes on"


@alone
def test_a_fork_while_a_lock_is_held(address: str, digits_model: Digits) -> None:
    """A thread of the parent holds all locks; nobody in the child would release them."""
    rows = digits_model.X[:2]
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        held = threading.Event(), threading.Event()

        def hold() -> None:
            locks: list[Any] = [client._session._lock, client._connections._lock, *client._locks.values()]
            for lock in locks:
                lock.acquire()
            held[0].set()
            held[1].wait(HANG_SECONDS)
            for lock in locks:
                lock.release()

        holder = threading.Thread(target=hold)
        holder.start()
        held[0].wait(HANG_SECONDS)
        try:
            answer = in_child(lambda: client.predict(rows, timeout_seconds=CHILD_SECONDS / 2).tolist())
            closed = in_child(client.close)
        finally:
            held[1].set()
            holder.join()
    assert answer == digits_model.estimator.predict(rows).tolist()
    assert closed is None


@alone
def test_a_stream_of_the_parent_ends_in_the_child(address: str, digits_model: Digits) -> None:
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        stream = client.stream(digits_model.X[:100])
        next(stream)

        def go_on() -> int:
            return sum(1 for _ in stream)

        assert in_child(go_on) is UnavailableError
        assert go_on() == 99


@alone
def test_asyncio_says_that_it_does_not_survive_a_fork(address: str, digits_model: Digits) -> None:
    async def predict() -> Any:
        async with AsyncClient(address, timeout_seconds=CHILD_SECONDS / 2) as client:
            return (await client.predict(digits_model.X[:2])).tolist()

    assert asyncio.run(predict()) == digits_model.estimator.predict(digits_model.X[:2]).tolist()
    assert in_child(lambda: asyncio.run(predict())) is UsageError


@alone
def test_processes_that_encrypt_are_the_childs_own(address: str, digits_model: Digits) -> None:
    rows = np.tile(digits_model.X, (4, 1))
    with Client(address, layout="column", encrypt_processes=1, timeout_seconds=HANG_SECONDS) as client:
        expected = client.predict(rows).tolist()

        def predict_and_close() -> Any:
            with client:
                return client.predict(rows[:300], timeout_seconds=CHILD_SECONDS / 2).tolist()

        pool = client._session._encryptors
        assert pool is not None
        worker = pool._idle.get()  # as if the parent were using it
        try:
            assert in_child(predict_and_close) == expected[:300]
        finally:
            pool._idle.put(worker)
        assert client.predict(rows).tolist() == expected
