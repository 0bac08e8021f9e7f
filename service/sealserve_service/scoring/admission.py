"""The admission of work: quotas of tenants, and the memory and time of this process.

Work that has room is admitted, and other work is refused at once.

One item is scored at a time: SEAL's binding holds the GIL through its arithmetic, so that a second
thread would only make both items late. A new item therefore waits for all work that was admitted
before it. A call with one item is refused when this wait is longer than half of the item's own time
on an idle server, and longer than MIN_WAIT_SECONDS. An admitted call is answered in about one and a
half times the time of an idle server, however many calls arrive. Streams are held back by flow
control instead: what the service does not read waits on the client's side.

Reading and decoding a call that is then refused delays the item that has its turn. So a call is
refused before its request is read while no engine would let an item wait. While some engine would,
a call is refused only when its request tells which engine it asks for.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sealserve.errors import QuotaExceededError
from sealserve_service.engines.base import Engine
from sealserve_service.scoring.bucket import Bucket
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import Tenant

MIN_WAIT_SECONDS = 0.01
# A refused client tries again, and each refusal takes time too: it is told to wait this long.
MIN_RETRY_SECONDS = 0.1
_LEARNING_RATE = 0.1
_NO_QUOTA = Quota()
_REQUESTS = "requests_per_minute"
# The usage of so many tenants is remembered. Beyond that, tenants without bytes in flight are
# forgotten.
_MAX_TENANTS = 10_000


@dataclass
class _Usage:
    """What a tenant uses."""

    byte_count: int = 0
    buckets: dict[str, Bucket] = field(default_factory=dict)


class Admission:
    """The bounds of the work of one process.

    Args:
        max_bytes: of the ciphertexts of all items in flight.
        quota: of tenants that have none of their own.
        clock: returns the time in seconds; for tests.
        telemetry: the metrics; by default the admission has its own.

    Attributes:
        charged_in_vain: the names of the callers for whom `check_requests` may raise.
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
        self.charged_in_vain = set[str]()
        self._turn = threading.Lock()  # held by the thread that scores
        self._now = (0.0, 0.0)  # when the item that has its turn began, and how long it is expected to take

    def charge(self, tenant: Tenant, row_count: int) -> None:
        """Charge a tenant for an item of so many rows.

        Raises:
            QuotaExceededError: the tenant has used up its rows or requests. Nothing is charged
                then.
        """
        quota = tenant.quota or self._quota
        if quota.requests_per_minute is None and quota.rows_per_minute is None:
            return
        wanted = [
            (name, capacity, amount)
            for name, capacity, amount in (
                (_REQUESTS, quota.requests_per_minute, 1),
                ("rows_per_minute", quota.rows_per_minute, row_count),
            )
            if capacity is not None
        ]
        now = self._clock()
        with self._lock:
            for name, capacity, amount in wanted:
                if delay := self._bucket(tenant.name, name, capacity, now).delay(amount, now):
                    raise QuotaExceededError(name, max(delay, MIN_RETRY_SECONDS))
            for name, capacity, amount in wanted:
                self._bucket(tenant.name, name, capacity, now).take(amount, now)

    def charge_in_vain(self, caller: Caller) -> None:
        """Charge a caller one request for a call that took a slot and brought nothing.

        It is charged even if the caller has used up its requests: see `check_requests`. Of callers
        that are one tenant, only the address that the call came from is charged.
        """
        if capacity := (caller.tenant.quota or self._quota).requests_per_minute:
            now = self._clock()
            with self._lock:
                self._bucket(caller.name, _REQUESTS, capacity, now).owe(1, now)
                self.charged_in_vain.add(caller.name)

    def check_requests(self, caller: Caller) -> None:
        """Check that a caller owes no requests.

        Raises:
            QuotaExceededError: it made more calls that brought nothing than it had requests left.
        """
        capacity, now = (caller.tenant.quota or self._quota).requests_per_minute, self._clock()
        with self._lock:
            delay = self._bucket(caller.name, _REQUESTS, capacity, now).delay(0, now) if capacity else 0.0
            if delay:
                raise QuotaExceededError(_REQUESTS, max(delay, MIN_RETRY_SECONDS))
            self.charged_in_vain.discard(caller.name)

    def hold(self, tenant: Tenant, byte_count: int) -> None:
        """Hold bytes of a tenant's ciphertexts, until `release`.

        Raises:
            QuotaExceededError: the tenant has too many bytes in flight, or this process has no
                room.
        """
        with self._lock:
            usage = self._usage.get(tenant.name) or self._usage_of(tenant.name)
            limit = (tenant.quota or self._quota).bytes_in_flight
            if limit is not None and usage.byte_count + byte_count > limit:
                raise QuotaExceededError("bytes_in_flight", MIN_RETRY_SECONDS)
            if self._byte_count + byte_count > self._max_bytes:
                raise QuotaExceededError("server_bytes", MIN_RETRY_SECONDS)
            usage.byte_count += byte_count
            self._byte_count += byte_count
            self._telemetry.held_bytes.set(self._byte_count)

    def release(self, tenant: Tenant, byte_count: int) -> None:
        """Release bytes that were held."""
        with self._lock:
            usage = self._usage.get(tenant.name) or self._usage_of(tenant.name)
            usage.byte_count -= byte_count
            self._byte_count -= byte_count
            self._telemetry.held_bytes.set(self._byte_count)

    def check_wait(self, engines: Callable[[], Iterable[Engine]]) -> None:
        """Check that an item of at least one engine could still have its turn soon.

        Nothing is charged or held.

        Raises:
            QuotaExceededError: an item of any of them would have to wait for too long.
        """
        if not self._backlog_seconds:
            return
        with self._lock:
            wait = self._wait_seconds()
            if wait > MIN_WAIT_SECONDS and not any(wait <= self._longest_wait(engine) for engine in engines()):
                raise _busy("server_seconds", wait)

    @contextmanager
    def turn(self, engine: Engine, seconds_left: float | None = None, *, may_wait_long: bool = False) -> Iterator[None]:
        """Wait for the turn of an item, or of a part of it, and have the turn in the context.

        Args:
            engine: scores the item; tells how long that takes.
            seconds_left: until its client's deadline, if it has one.
            may_wait_long: whether it waits however long it takes, as the items of streams do.

        Raises:
            QuotaExceededError: it may not wait so long, or it would end after its deadline.
        """
        if not engine.holds_gil:
            yield
            return
        with self._lock:
            seconds = self._seconds.get(engine, engine.offer.cost.server_seconds)
            wait = self._wait_seconds() if self._backlog_seconds else 0.0
            if wait > MIN_WAIT_SECONDS and not may_wait_long and wait > self._longest_wait(engine):
                raise _busy("server_seconds", wait)
            if seconds_left is not None and wait + seconds > seconds_left:
                raise _busy("deadline", wait)
            self._backlog_seconds += seconds
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

    def learn(self, engine: Engine, seconds: float) -> None:
        """Adjust the expected time of an engine's items to the time that one has taken."""
        with self._lock:
            expected = self._seconds.get(engine, engine.offer.cost.server_seconds)
            self._seconds[engine] = expected + _LEARNING_RATE * (seconds - expected)

    def _wait_seconds(self) -> float:
        """Return how long the next item would wait.

        That is the backlog, less the time that the current item has had its turn.
        """
        began, seconds = self._now
        return self._backlog_seconds - min(self._clock() - began, seconds)

    def _longest_wait(self, engine: Engine) -> float:
        """Return how many seconds an item may wait; an item that needs no turn never waits.

        That is half of the time that an item takes now, but not more than half of the time that it
        was measured to take while the process did nothing else. Otherwise a slow spell would let
        the next items wait longer, and so it would last.
        """
        if not engine.holds_gil:
            return math.inf
        seconds = self._seconds.get(engine, engine.offer.cost.server_seconds)
        return max(min(seconds, engine.offer.cost.server_seconds) / 2, MIN_WAIT_SECONDS)

    def _bucket(self, user: str, name: str, capacity: float, now: float) -> Bucket:
        """Return the bucket of a tenant or an address; a new one is full. The lock is held."""
        buckets = self._usage_of(user).buckets
        if name not in buckets or buckets[name].capacity != capacity:
            buckets[name] = Bucket(capacity=capacity, level=capacity, filled=now)
        return buckets[name]

    def _usage_of(self, user: str) -> _Usage:
        if user not in self._usage and len(self._usage) >= _MAX_TENANTS:
            self._usage = {name: usage for name, usage in self._usage.items() if usage.byte_count}
            self.charged_in_vain &= self._usage.keys()
        return self._usage.setdefault(user, _Usage())


def _busy(quota: str, wait: float) -> QuotaExceededError:
    return QuotaExceededError(quota, max(2 * wait, MIN_RETRY_SECONDS))
