"""The threads of a server: how many there may be, and pools of them that are complete at start.

gRPC's own serving thread hands each call to a pool. A pool of the standard library starts its
threads when they are first needed. If the system refuses one then, the error ends gRPC's serving
thread, and the server never answers again. Therefore all threads of a pool are started with it:
a system that has no room for them says so at start.
"""

import mmap
import resource
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from sealserve.errors import SealserveError

STACK_BYTES = 1 << 20
"""Of address space for each thread. The system's 8 MB would add up to gigabytes."""
# Beside the two pools of a server: gRPC's own, those of the metrics, of uploads, and a few single
# ones.
_OTHER_THREADS = 64
# What threads take while they start, beside their stacks. A thread that finds no memory then never
# says that it has started, and Python waits for it without end.
_STARTING_BYTES = 64 << 20
_BASE_BYTES = 400 << 20  # of address space: Python, its libraries, and a small model

T = TypeVar("T")


class NoThreadError(SealserveError):
    """The system refuses the threads that a server needs; the text says what to do."""


class _Task(NamedTuple):
    future: Future[Any]
    function: Callable[[], Any]


def pool_threads(limit: int | None, processes: int, wanted: int) -> int:
    """Return how many threads each of a process's two pools may have, at most as many as wanted."""
    if limit is None:
        return wanted
    return max(1, min(wanted, (limit // processes - _OTHER_THREADS) // 2))


class CallThreads(Executor):
    """A pool whose idle threads are woken in the order last in, first out.

    The pool of the standard library wakes the thread that has been idle longest. Calls that come
    one by one would go round all threads, and each would find its stack, and the memory that the
    allocator keeps for its thread, outside the processor's caches.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._thread_count = thread_count
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Task | None]] = []  # of each idle thread, where it gets a task
        self._waiting: deque[_Task] = deque()
        self._is_shut_down = False

    def start(self) -> None:
        """Start all threads, so that `submit` starts none.

        Raises:
            NoThreadError: the system refuses a thread, and those that did start end; or it has no
                address space for all of them, and none is started.
        """
        before = threading.stack_size(STACK_BYTES)
        try:
            room = self._thread_count * STACK_BYTES + _STARTING_BYTES
            mmap.mmap(-1, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ).close()
            for number in range(self._thread_count):
                threading.Thread(target=self._run, name=f"{self._name}_{number}", daemon=True).start()
        except (RuntimeError, MemoryError, OSError) as error:
            self.shutdown(wait=False)
            raise NoThreadError(
                f"the system refuses a thread: a serving process has two pools of {self._thread_count} threads, and "
                f"needs {2 * self._thread_count * STACK_BYTES >> 20} MB of address space for them; give it more "
                "threads (pids) or address space, or lower --max-concurrent-calls"
            ) from error
        finally:
            threading.stack_size(before)

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function on an idle thread, or on the first that becomes idle."""
        task = _Task(Future(), partial(function, *args, **kwargs))
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("the pool takes no more tasks: it is shut down")
            if not self._idle:
                self._waiting.append(task)
                return task.future
            thread = self._idle.pop()
        thread.put(task)
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and end each thread when it has none. It waits for no thread."""
        with self._lock:
            self._is_shut_down = True
            while self._idle:
                self._idle.pop().put(None)

    def _run(self) -> None:
        tasks = SimpleQueue[_Task | None]()
        while True:
            with self._lock:
                task = self._waiting.popleft() if self._waiting else None
                if task is None:
                    if self._is_shut_down:
                        return
                    self._idle.append(tasks)
            task = task or tasks.get()
            if task is None:
                return
            if task.future.set_running_or_notify_cancel():
                try:
                    task.future.set_result(task.function())
                except BaseException as error:
                    task.future.set_exception(error)
            del task  # what a call held is freed before the next one


def check_address_space() -> None:
    """Check the limit of this process's address space, before large libraries fail to load in it.

    Raises:
        NoThreadError: it is below what a service needs before it has any thread.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _BASE_BYTES:
        raise NoThreadError(
            f"the address space is limited to {limit >> 20} MB; a service needs {_BASE_BYTES >> 20} MB, and 2 MB for "
            "each call at once: raise the limit (ulimit -v), or limit the memory of the container instead"
        )
