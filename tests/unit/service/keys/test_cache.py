"""The cache of keys: bounded, one load at a time, and no key beyond its time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError
from sealserve_service.keys.cache import RECHECK_SECONDS, KeyCache, Loaded
from sealserve_service.telemetry.metrics import Telemetry

START = datetime(2026, 1, 2, tzinfo=UTC)


class Keys:
    """A store of keys of 10 bytes each, and a clock."""

    def __init__(self, max_bytes: int = 30) -> None:
        self.expiry = dict.fromkeys("abcdef", START + timedelta(hours=1))
        self.loads: list[str] = []
        self.seconds = 0.0
        self.failure: Exception | None = None
        self.is_slow = False
        self.telemetry = Telemetry()
        self.cache = KeyCache(
            max_bytes,
            self._load,
            self._expiry,
            telemetry=self.telemetry,
            clock=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
        )

    def get(self, key_id: str, tenant: str = "alice") -> str:
        return self.cache.get(tenant, key_id)

    def counts(self) -> dict[str, float | None]:
        """The counts of the cache."""
        names = ("hits_total", "misses_total", "evictions_total", "bytes")
        return {name: self.telemetry.registry.get_sample_value(f"sealserve_key_cache_{name}") for name in names}

    def _load(self, tenant: str, key_id: str) -> Loaded[str]:
        self.loads.append(key_id)
        if self.is_slow:
            time.sleep(0.05)
        return Loaded(f"{tenant}'s {key_id}", 10, self._expiry(tenant, key_id))

    def _expiry(self, tenant: str, key_id: str) -> datetime:
        if self.failure:
            raise self.failure
        expires = self.expiry.get(key_id)
        if expires is None or expires <= START + timedelta(seconds=self.seconds):
            raise KeyNotFoundError(key_id)
        return expires


def test_a_key_is_loaded_once() -> None:
    keys = Keys()
    assert [keys.get("a"), keys.get("b"), keys.get("a")] == ["alice's a", "alice's b", "alice's a"]
    assert keys.loads == ["a", "b"]


def test_tenants_do_not_share_entries() -> None:
    keys = Keys()
    assert keys.get("a", "alice") == "alice's a"
    assert keys.get("a", "bob") == "bob's a"


def test_the_least_recently_used_key_goes_first() -> None:
    keys = Keys(max_bytes=30)
    for key_id in "abcad":  # a was used after b
        keys.get(key_id)
    keys.loads.clear()
    for key_id in "acdb":
        keys.get(key_id)
    assert keys.loads == ["b"]


def test_hits_misses_evictions_and_bytes_are_counted() -> None:
    keys = Keys(max_bytes=30)
    for key_id in "aabaca":
        keys.get(key_id)
    assert keys.counts() == {"hits_total": 3, "misses_total": 3, "evictions_total": 0, "bytes": 30}
    for key_id in "def":
        keys.get(key_id)
    assert keys.counts() == {"hits_total": 3, "misses_total": 6, "evictions_total": 3, "bytes": 30}
    keys.cache.forget("alice", "f")
    keys.cache.forget("alice", "never")
    with pytest.raises(KeyNotFoundError):
        keys.get("unknown")
    assert keys.counts() == {"hits_total": 3, "misses_total": 7, "evictions_total": 3, "bytes": 20}


def test_expired_keys_are_dropped_and_evict_no_others() -> None:
    keys = Keys(max_bytes=30)
    keys.expiry["b"] = START + timedelta(seconds=10)
    for key_id in "cab":
        keys.get(key_id)
    keys.seconds = 10.0
    keys.get("d")
    assert keys.counts() == {"hits_total": 0, "misses_total": 4, "evictions_total": 0, "bytes": 30}
    keys.seconds = 3600.0
    keys.cache.drop_expired()
    assert keys.counts()["bytes"] == 0


def test_a_key_larger_than_the_cache_is_used_and_not_kept() -> None:
    keys = Keys(max_bytes=9)
    assert keys.get("a") == keys.get("a") == "alice's a"
    assert keys.loads == ["a", "a"]


def test_many_threads_load_a_key_once() -> None:
    keys = Keys()
    keys.is_slow = True
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(keys.get, "a" * 64)) == {"alice's a"}
    assert keys.loads == ["a"]


def test_a_failure_reaches_all_who_wait_and_the_next_tries_anew() -> None:
    keys = Keys()
    keys.failure = KeyStoreUnavailableError(1.0)
    barrier = threading.Barrier(4)

    def get() -> type[Exception] | str:
        barrier.wait()
        try:
            return keys.get("a")
        except KeyStoreUnavailableError as error:
            return type(error)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(get) for _ in range(4)]
        assert {future.result() for future in futures} == {KeyStoreUnavailableError}
    keys.failure = None
    assert keys.get("a") == "alice's a"


def test_an_expired_key_is_not_found_and_a_renewed_one_goes_on() -> None:
    keys = Keys()
    keys.get("a")
    keys.get("b")
    keys.expiry["b"] += timedelta(hours=1)
    keys.seconds = 3600.0
    with pytest.raises(KeyNotFoundError):
        keys.get("a")
    assert keys.get("b") == "alice's b"
    assert keys.loads == ["a", "b"]


def test_a_key_deleted_elsewhere_serves_for_a_minute_at_most() -> None:
    keys = Keys()
    keys.get("a")
    del keys.expiry["a"]
    keys.seconds = RECHECK_SECONDS - 1
    assert keys.get("a") == "alice's a"
    keys.seconds = RECHECK_SECONDS
    with pytest.raises(KeyNotFoundError):
        keys.get("a")
    with pytest.raises(KeyNotFoundError):
        keys.get("a")


def test_a_store_that_does_not_answer_leaves_a_key_until_it_expires() -> None:
    keys = Keys()
    keys.get("a")
    keys.failure = KeyStoreUnavailableError(1.0)
    keys.seconds = 2 * RECHECK_SECONDS
    assert keys.get("a") == "alice's a"
    keys.seconds = 3600.0
    with pytest.raises(KeyStoreUnavailableError):
        keys.get("a")


def test_a_forgotten_key_is_loaded_anew() -> None:
    keys = Keys()
    keys.get("a")
    keys.cache.forget("alice", "a")
    keys.cache.forget("alice", "never there")
    keys.get("a")
    assert keys.loads == ["a", "a"]
