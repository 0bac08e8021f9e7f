"""The admission of work: quotas of tenants, and the memory and time of this process.

Work that has room is admitted, or waits for a short time. Other work is refused at once. `turns`
has the order in which items are computed, and what is refused because it would wait for too long.
Streams are held back by flow control instead: what the service does not read waits on the client's
side.

To read and decode a call that is then refused takes time from the items that are computed. So a
call is refused before its request is read while items of every engine would wait for too long. Only
the request tells which engine it asks for.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sealserve.errors import QuotaExceededError
from sealserve_service.engines.base import Engine
from sealserve_service.scoring.bucket import Bucket
from sealserve_service.scoring.turns import MIN_RETRY_SECONDS, Turns
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import Tenant

DEFAULT_MAX_WAIT_SECONDS = 0.1
_NO_QUOTA = Quota()
_REQUESTS, EMPTY_CALLS = "requests_per_minute", "empty_calls_per_minute"
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
        max_wait_seconds: how long an item may wait for its turn.
        core_count: of this process.
        clock: returns the time in seconds; for tests.
        telemetry: the metrics; by default the admission has its own.

    Attributes:
        charged_in_vain: the names of the callers for whom `check_debt` may raise.
        turns: those of items that hold the GIL while they are computed (True), of which there is
            one at a time, and those of other items (False), of which there is one on each core.
        telemetry: as given.
    """

    def __init__(
        self,
        max_bytes: int,
        quota: Quota = _NO_QUOTA,
        *,
        max_wait_seconds: float = DEFAULT_MAX_WAIT_SECONDS,
        core_count: int = 1,
        clock: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry or Telemetry()
        self._max_bytes = max_bytes
        self._quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._byte_count = 0
        self._usage: dict[str, _Usage] = {}
        self.charged_in_vain = set[str]()
        self.turns = {
            holds_gil: Turns(1 if holds_gil else core_count, max_wait_seconds, self.telemetry, clock)
            for holds_gil in (True, False)
        }

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
        """Charge a caller one request for a call that took a slot and brought nothing; count it.

        It is charged even if the caller has used up its requests: see `check_debt`. Of callers that
        are one tenant, only the address that the call came from is charged.
        """
        self._owe(caller, _REQUESTS)
        self.count_empty(caller)

    def count_empty(self, caller: Caller) -> None:
        """Count a call of a caller that brought nothing. If there are too many, it owes calls."""
        self._owe(caller, EMPTY_CALLS)

    def check_debt(self, caller: Caller) -> None:
        """Check that a caller owes nothing. One that owes calls is charged for asking.

        Raises:
            QuotaExceededError: it made more calls that brought nothing than it may make, or than it
                had requests left.
        """
        now = self._clock()
        with self._lock:
            for name in (_REQUESTS, EMPTY_CALLS):
                if not (capacity := self._capacity(caller, name)):
                    continue
                bucket = self._bucket(caller.name, name, capacity, now)
                if delay := bucket.delay(0, now):
                    if name == EMPTY_CALLS:
                        bucket.owe(1, now)
                    raise QuotaExceededError(name, max(delay, MIN_RETRY_SECONDS))
            self.charged_in_vain.discard(caller.name)

    def is_ignored(self, caller: Caller) -> bool:
        """Whether a caller gets no answers: it owes half a minute's calls, and still makes some."""
        capacity, now = self._capacity(caller, EMPTY_CALLS), self._clock()
        if not capacity:
            return False
        with self._lock:
            return self._bucket(caller.name, EMPTY_CALLS, capacity, now).level_at(now) < -capacity / 2

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
            self.telemetry.held_bytes.set(self._byte_count)

    def release(self, tenant: Tenant, byte_count: int) -> None:
        """Release bytes that were held."""
        with self._lock:
            usage = self._usage.get(tenant.name) or self._usage_of(tenant.name)
            usage.byte_count -= byte_count
            self._byte_count -= byte_count
            self.telemetry.held_bytes.set(self._byte_count)

    def check_wait(self, engines: Callable[[], Iterable[Engine]], caller: Caller) -> None:
        """Check that an item of a caller and of at least one engine could have its turn soon.

        Nothing is charged or held.

        Raises:
            QuotaExceededError: an item of any of them would have to wait for too long.
        """
        if self.turns[True].makes_wait(caller.name):
            wanted = [self.turns[holds_gil] for holds_gil in {engine.holds_gil for engine in engines()}]
            if wanted and all(turns.makes_wait(caller.name) for turns in wanted):
                raise wanted[0].refusal(caller.name)

    def idle_seconds(self) -> float:
        """Return for how long no item has been computed and none has waited."""
        return min(turns.idle_seconds for turns in self.turns.values())

    def _owe(self, caller: Caller, name: str) -> None:
        if capacity := self._capacity(caller, name):
            now = self._clock()
            with self._lock:
                self._bucket(caller.name, name, capacity, now).owe(1, now)
                self.charged_in_vain.add(caller.name)

    def _capacity(self, caller: Caller, name: str) -> float | None:
        """Return what a caller has a minute. A quota of its own may leave empty calls to ours."""
        own = caller.tenant.quota
        if name == EMPTY_CALLS and own is not None and own.empty_calls_per_minute is None:
            own = None
        capacity: float | None = getattr(own or self._quota, name)
        return capacity

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
