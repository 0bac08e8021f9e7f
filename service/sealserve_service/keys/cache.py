"""The cache of keys that are ready for use.

It is bounded in bytes. It drops expired keys, and then evicts the least recently used ones first.
One thread loads a key for all threads that wait for it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError
from sealserve_service.telemetry.metrics import Telemetry

V = TypeVar("V")

RECHECK_SECONDS = 60.0
"""How long this process may still use a key that was deleted at another process."""


class Loaded(NamedTuple, Generic[V]):
    """A key that is ready for use, its size in memory, and the time when it expires."""

    value: V
    byte_count: int
    expire_time: datetime


@dataclass
class _Entry(Generic[V]):
    loading: "Future[Loaded[V]]"
    checked: float  # when the store last had the key, in time.monotonic() seconds


class KeyCache(Generic[V]):
    """Ready keys, by tenant and id.

    Args:
        max_bytes: a bound on the memory of the kept keys; a key that alone is larger is not kept.
        load: reads a key from the store and makes it ready.
        expiry: asks the store again when a key expires.
        clock, monotonic: return the time; for tests.
        telemetry: the metrics; by default the cache has its own.
    """

    def __init__(
        self,
        max_bytes: int,
        load: Callable[[str, str], Loaded[V]],
        expiry: Callable[[str, str], datetime],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._max_bytes = max_bytes
        self._load = load
        self._expiry = expiry
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], _Entry[V]] = OrderedDict()

    def get(self, tenant: str, key_id: str) -> V:
        """Return a key, from the store if it is not in the cache.

        Raises:
            KeyNotFoundError: the tenant has no such key, or it has expired.
            KeyStoreUnavailableError: the key is not in the cache, and the store does not answer.
        """
        key, is_new = (tenant, key_id), False
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                is_new = True
                entry = self._entries[key] = _Entry(loading=Future(), checked=self._monotonic())
            self._entries.move_to_end(key)
        if is_new:
            self._telemetry.key_cache_misses.inc()
            self._fill(key, entry)
        else:
            self._telemetry.key_cache_hits.inc()
        loaded = entry.loading.result()
        if self._monotonic() >= entry.checked + RECHECK_SECONDS or loaded.expire_time <= self._clock():
            self._recheck(key, entry)
        return loaded.value

    def drop_expired(self) -> None:
        """Drop the keys that have expired."""
        with self._lock:
            self._drop_expired()
            self._measure()

    def forget(self, tenant: str, key_id: str) -> None:
        """Drop a key."""
        with self._lock:
            self._entries.pop((tenant, key_id), None)
            self._measure()

    def _fill(self, key: tuple[str, str], entry: _Entry[V]) -> None:
        """Load a key for all threads that wait for it.

        A key that fails is forgotten, so that the next thread tries again.
        """
        try:
            entry.loading.set_result(self._load(*key))
        except BaseException as error:
            self.forget(*key)
            entry.loading.set_exception(error)
            return
        with self._lock:
            self._drop_expired()
            excess = self._measure() - self._max_bytes
            for key, loaded in self._ready():  # the least recently used one first
                if excess <= 0:
                    break
                del self._entries[key]
                self._telemetry.key_cache_evictions.inc()
                excess -= loaded.byte_count
            self._measure()

    def _drop_expired(self) -> None:
        now = self._clock()
        for key, loaded in self._ready():
            if loaded.expire_time <= now:
                del self._entries[key]

    def _ready(self) -> list[tuple[tuple[str, str], Loaded[V]]]:
        return [(key, entry.loading.result()) for key, entry in self._entries.items() if entry.loading.done()]

    def _measure(self) -> int:
        """Publish and return how many bytes are ready for use. The caller holds the lock."""
        byte_count = sum(loaded.byte_count for _, loaded in self._ready())
        self._telemetry.key_cache_bytes.set(byte_count)
        return byte_count

    def _recheck(self, key: tuple[str, str], entry: _Entry[V]) -> None:
        """Ask the store whether a key is still in force.

        If the store does not answer, the key stays in force until it expires.
        """
        loaded = entry.loading.result()
        entry.checked = self._monotonic()  # before asking, so that other threads go on with the key
        try:
            expire_time = self._expiry(*key)
        except KeyNotFoundError:
            self.forget(*key)
            raise
        except KeyStoreUnavailableError:
            if loaded.expire_time <= self._clock():
                raise
        else:
            entry.loading = Future()
            entry.loading.set_result(loaded._replace(expire_time=expire_time))
