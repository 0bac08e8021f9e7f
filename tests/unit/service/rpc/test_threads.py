"""Pools of threads that are complete at start, and how many threads there may be."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sealserve_service.rpc.threads import STACK_BYTES, NoThreadError, pool_threads, start_all, thread_limit


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


def started(pool: ThreadPoolExecutor) -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith(f"{pool._thread_name_prefix}_") for name in names)


@pytest.mark.parametrize("is_started_whole", [True, False])
def test_a_pool_that_is_started_whole_needs_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, is_started_whole: bool
) -> None:
    with ThreadPoolExecutor(5, f"whole-{is_started_whole}") as pool:
        if is_started_whole:
            start_all(pool, 5)
        NoThread(monkeypatch, 0)
        if is_started_whole:
            assert started(pool) == 5
            assert list(pool.map(abs, range(20))) == list(range(20))
        else:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(abs, 1)


def test_a_system_without_so_many_threads_says_so_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = threading.stack_size()
    with ThreadPoolExecutor(5, "refused") as pool:
        NoThread(monkeypatch, 3)
        with pytest.raises(NoThreadError, match="--max-concurrent-calls"):
            start_all(pool, 5)
    assert threading.stack_size() == stack != STACK_BYTES
    assert started(pool) == 0, "those that did start have ended"


@pytest.mark.parametrize(
    ("limit", "processes", "threads"), [(None, 8, 352), (2048, 1, 352), (2048, 2, 352), (2048, 4, 224), (70, 2, 1)]
)
def test_threads_fit_into_the_limit(limit: int | None, processes: int, threads: int) -> None:
    assert pool_threads(limit, processes, 352) == threads
    if limit and threads > 1:
        assert processes * (2 * threads + 64) <= limit


@pytest.mark.parametrize(("text", "limit"), [("2048\n", 2048), ("max\n", None)])
def test_the_limit_of_the_container(tmp_path: Path, text: str, limit: Any) -> None:
    path = tmp_path / "pids.max"
    path.write_text(text)
    assert thread_limit((tmp_path / "missing", path)) == limit
