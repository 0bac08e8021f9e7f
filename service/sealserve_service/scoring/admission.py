"""What fits is admitted, what does not is refused at once: quotas of tenants, and the room and time of this process.

Items are scored one at a time (SEAL's binding holds the GIL through its arithmetic: a second thread would only make
both late), so the wait of a new one is the work that was admitted before it. A call with one item is refused when that
is longer than half of what the item itself takes on an idle server, and at least MIN_WAIT_SECONDS: whoever is admitted
is answered in about one and a half times the time of an idle server, whatever the load. Streams are held back by flow
control instead: what is not read waits on the client's side.

What is read and decoded of a call that is refused delays the item in turn. So a call is refused before its request is
read, while no item of any engine would be let wait; where some would, it is refused once it is known what it asks for.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from sealserve.errors import QuotaExceededError
from sealserve_service.engines.base import Engine
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import Tenant

MIN_WAIT_SECONDS = 0.01
# Whoever is refused comes back, and refusing costs something too: not sooner than this.
MIN_RETRY_SECONDS = 0.1
_LEARNING_RATE = 0.1
_NO_QUOTA = Quota()
_MAX_TENANTS = 10_000  # whose buckets are remembered; more than that only names that nobody gave out can be

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_BASE_BYTES = 300 << 20  # of a process that serves and has nothing to do
_MIN_WORK_BYTES, _MAX_WORK_BYTES = 32 << 20, 1 << 30


def memory_limit_bytes(files: tuple[Path, ...] = _MEMORY_LIMITS) -> int | None:
    """Return the memory limit of this container; None where there is none."""
    for file in files:
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):  # "max" is no number
            continue
        if limit < 1 << 50:  # cgroup v1 says 2^63 for none
            return limit
    return None


def work_bytes(limit: int | None, processes: int) -> int:
    """Return how many bytes of ciphertexts a process may hold: a quarter of what it has beyond its own needs.

    A ciphertext is there up to four times: as received, as bytes, as SEAL's object, as the reply that is made of it.
    """
    if limit is None:
        return _MAX_WORK_BYTES
    return min(max((limit // processes - _BASE_BYTES) // 4, _MIN_WORK_BYTES), _MAX_WORK_BYTES)


@dataclass
class _Bucket:
    """A minute's worth of something, filled as time goes by."""

    capacity: float
    level: float
    filled: float

    def take(self, amount: float, now: float) -> float:
        """Take some, or return in how many seconds there will be enough; all of it is enough for more than all."""
        self.level = min(self.capacity, self.level + (now - self.filled) * self.capacity / 60)
        self.filled = now
        wanted = min(amount, self.capacity)
        if wanted > self.level:
            return (wanted - self.level) * 60 / self.capacity
        self.level -= amount
        return 0.0


@dataclass
class _Usage:
    """What a tenant has in use."""

    byte_count: int = 0
    buckets: dict[str, _Bucket] = field(default_factory=dict)


class Admission:
    """The bounds of one process.

    Args:
        max_bytes: of ciphertexts of all items that have no end yet.
        quota: of tenants that have none of their own.
        telemetry: counts; its own without it.
    """

    def __init__(
        self,
        max_bytes: int,
        quota: Quota = _NO_QUOTA,
        *,
        clock: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._max_bytes = max_bytes
        self._quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._byte_count = 0
        self._backlog_seconds = 0.0
        self._seconds: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()
        self._usage: dict[str, _Usage] = {}
        self._turn = threading.Lock()  # held by the thread that scores
        self._now = (0.0, 0.0)  # when the item in turn began, and how long it is thought to take

    def charge(self, tenant: Tenant, row_count: int) -> None:
        """Charge a tenant for an item of so many rows.

        Raises:
            QuotaExceededError: it has used up its rows or requests; nothing is charged then.
        """
        quota, now = tenant.quota or self._quota, self._clock()
        wanted = (
            ("requests_per_minute", quota.requests_per_minute, 1),
            ("rows_per_minute", quota.rows_per_minute, row_count),
        )
        with self._lock:
            buckets, taken = self._used(tenant).buckets, list[tuple[_Bucket, int]]()
            for name, capacity, amount in wanted:
                if capacity is None:
                    continue
                bucket = buckets.get(name)
                if bucket is None or bucket.capacity != capacity:
                    bucket = buckets[name] = _Bucket(capacity, capacity, now)
                if delay := bucket.take(amount, now):
                    for other, given in taken:
                        other.level += given
                    raise QuotaExceededError(name, max(delay, MIN_RETRY_SECONDS))
                taken.append((bucket, amount))

    def hold(self, tenant: Tenant, byte_count: int) -> None:
        """Hold bytes of a tenant's ciphertexts, until `release`.

        Raises:
            QuotaExceededError: the tenant has too many in flight, or this process has no room.
        """
        with self._lock:
            usage = self._used(tenant)
            limit = (tenant.quota or self._quota).bytes_in_flight
            if limit is not None and usage.byte_count + byte_count > limit:
                raise QuotaExceededError("bytes_in_flight", MIN_RETRY_SECONDS)
            if self._byte_count + byte_count > self._max_bytes:
                raise QuotaExceededError("server_bytes", MIN_RETRY_SECONDS)
            usage.byte_count += byte_count
            self._byte_count += byte_count
            self._telemetry.held_bytes.set(self._byte_count)

    def release(self, tenant: Tenant, byte_count: int) -> None:
        """Let go of bytes that were held."""
        with self._lock:
            self._used(tenant).byte_count -= byte_count
            self._byte_count -= byte_count
            self._telemetry.held_bytes.set(self._byte_count)

    def check_wait(self, engines: Iterable[Engine]) -> None:
        """Look whether an item of any of the engines would be let wait for its turn. Nothing is charged or held.

        Raises:
            QuotaExceededError: none would.
        """
        with self._lock:
            wait = self._wait_seconds()
            if wait > MIN_WAIT_SECONDS and not any(wait <= self._longest_wait(engine) for engine in engines):
                raise _busy("server_seconds", wait)

    @contextmanager
    def turn(self, engine: Engine, seconds_left: float | None) -> Iterator[None]:
        """Wait for the turn of an item, if the wait is short, and have it.

        Args:
            engine: what scores the item; tells how long that takes.
            seconds_left: until its client's deadline, if it has one.

        Raises:
            QuotaExceededError: it would have to wait for too long, or until after its deadline.
        """
        if not engine.holds_gil:
            yield
            return
        with self._lock:
            seconds, wait = self._seconds_of(engine), self._wait_seconds()
            if wait > self._longest_wait(engine):
                raise _busy("server_seconds", wait)
            if seconds_left is not None and wait + seconds > seconds_left:
                raise _busy("deadline", wait)
            self._backlog_seconds += seconds
        with self._queued(seconds):
            yield

    @contextmanager
    def patient_turn(self, engine: Engine) -> Iterator[None]:
        """Wait for the turn of a stream's item, however long that takes, and have it."""
        if not engine.holds_gil:
            yield
            return
        with self._lock:
            seconds = self._seconds_of(engine)
            self._backlog_seconds += seconds
        with self._queued(seconds):
            yield

    @contextmanager
    def _queued(self, seconds: float) -> Iterator[None]:
        """Wait for the turn of an item that is in the backlog, and have it."""
        try:
            if not self._turn.acquire(blocking=False):
                with self._telemetry.items_waiting.track_inprogress():
                    self._turn.acquire()
            self._now = (self._clock(), seconds)
            try:
                yield
            finally:
                self._now = (0.0, 0.0)
                self._turn.release()
        finally:
            with self._lock:
                self._backlog_seconds -= seconds

    def _wait_seconds(self) -> float:
        """Return how long the next item would wait: what is in the backlog, less what is done of the item in turn."""
        began, seconds = self._now
        return self._backlog_seconds - min(self._clock() - began, seconds)

    def _longest_wait(self, engine: Engine) -> float:
        """Return for how many seconds an item may wait; one that needs no turn does not wait.

        Half of what it takes now, but no more than half of what it was thought to take when nothing else was done: else
        a slow spell would let the next ones wait longer, and so last.
        """
        if not engine.holds_gil:
            return math.inf
        return max(min(self._seconds_of(engine), engine.offer.cost.server_seconds) / 2, MIN_WAIT_SECONDS)

    def learn(self, engine: Engine, seconds: float) -> None:
        """Take to heart how long an item took."""
        with self._lock:
            known = self._seconds_of(engine)
            self._seconds[engine] = known + _LEARNING_RATE * (seconds - known)

    def _seconds_of(self, engine: Engine) -> float:
        return self._seconds.get(engine, engine.offer.cost.server_seconds)

    def _used(self, tenant: Tenant) -> _Usage:
        if tenant.name not in self._usage and len(self._usage) >= _MAX_TENANTS:
            self._usage = {name: usage for name, usage in self._usage.items() if usage.byte_count}
        return self._usage.setdefault(tenant.name, _Usage())


def _busy(quota: str, wait: float) -> QuotaExceededError:
    return QuotaExceededError(quota, max(2 * wait, MIN_RETRY_SECONDS))
