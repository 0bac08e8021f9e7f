"""Pools of threads that are complete at start, and how many threads there may be."""

import contextlib
import errno
import mmap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealserve_service.rpc.threads import STACK_BYTES, CallThreads, NoThreadError, pool_threads
from tests.support.waiting import wait_until


class NoThread:
    """Makes the system refuse threads after a number of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        start = threading.Thread.start

        def counted(thread: threading.Thread) -> None:
            nonlocal allowed
            if not allowed:
                raise RuntimeError("can't start new thread")
            allowed -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", counted)


def started(name: str) -> int:
    return sum(thread.name.startswith(f"{name}_") for thread in threading.enumerate())


@contextlib.contextmanager
def running(name: str, thread_count: int = 5) -> Iterator[CallThreads]:
    pool = CallThreads(thread_count, name)
    pool.start()
    try:
        yield pool
    finally:
        pool.shutdown()
        wait_until(lambda: not started(name))


def test_a_pool_that_has_started_needs_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("whole") as pool:
        NoThread(monkeypatch, 0)
        assert started("whole") == 5
        assert list(pool.map(abs, range(20))) == list(range(20))


def test_a_pool_of_the_standard_library_would_need_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(5, "lazy") as pool:
        NoThread(monkeypatch, 0)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(abs, 1)


def test_a_system_without_so_many_threads_says_so_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = threading.stack_size()
    pool = CallThreads(5, "refused")
    NoThread(monkeypatch, 3)
    with pytest.raises(NoThreadError, match="--max-concurrent-calls"):
        pool.start()
    assert threading.stack_size() == stack != STACK_BYTES
    wait_until(lambda: not started("refused"))  # those that did start end


def test_without_address_space_for_all_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python waits without end for a thread that finds no memory to say that it has started."""
    wanted = list[int]()

    def refuse(_: int, length: int, *__: object) -> None:
        wanted.append(length)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(NoThreadError, match="address space"):
        CallThreads(5, "roomless").start()
    assert wanted[0] > 5 * STACK_BYTES
    assert not started("roomless")


def test_calls_one_by_one_run_on_one_thread() -> None:
    with running("one") as pool:
        names = set()
        for _ in range(50):
            names.add(pool.submit(lambda: threading.current_thread().name).result())
            wait_until(lambda: len(pool._idle) == 5)
    assert len(names) == 1


def test_tasks_wait_for_a_thread_in_their_order() -> None:
    order: list[int] = []
    go_on = threading.Event()
    with running("busy", 1) as pool:
        pool.submit(go_on.wait)
        results = [pool.submit(order.append, number) for number in range(10)]
        assert results[3].cancel()
        go_on.set()
        results[-1].result()
    assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_task_that_fails_leaves_its_thread() -> None:
    with running("failing", 1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_a_pool_that_is_shut_down_ends_its_tasks_and_takes_no_more() -> None:
    go_on = threading.Event()
    with running("ending", 1) as pool:
        pool.submit(go_on.wait)
        waiting = pool.submit(abs, -1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(abs, 1)
        go_on.set()
        assert waiting.result() == 1


@pytest.mark.parametrize(
    ("limit", "processes", "threads"), [(None, 8, 352), (2048, 1, 352), (2048, 2, 352), (2048, 4, 224), (70, 2, 1)]
)
def test_threads_fit_into_the_limit(limit: int | None, processes: int, threads: int) -> None:
    assert pool_threads(limit, processes, 352) == threads
    if limit and threads > 1:
        assert processes * (2 * threads + 64) <= limit
