"""Ready zeros: each is used once, and by its process; who gets some, how many, and when."""

import gc
import itertools
import logging
import multiprocessing
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.seal_format import RESIDUES_AT
from sealserve_service.engines.linear import ready_zeros, zero_encryptor
from sealserve_service.engines.linear.ready_zeros import ReadyZeros
from sealserve_service.engines.linear.rerandomizer import Rerandomizer
from sealserve_service.engines.linear.zero_encryptor import MAX_AGE_SECONDS, ReadyZero, ZeroEncryptor
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.waiting import wait_until

SMALLEST, *_, LARGEST = LAYOUTS["row"].private_parameter_sets
HANG_SECONDS = 30.0
IDLE, BUSY = (lambda: 1.0), (lambda: 0.0)


def now() -> float:
    """The time of ready zeros."""
    time: float = vars(zero_encryptor)["time"].monotonic()
    return time


class Numbers:
    """In place of SEAL: each encryption of zero is the next number, as the only residue."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def encrypt_zero(self) -> Any:
        data = bytes(RESIDUES_AT) + next(self._numbers).to_bytes(8, "little")
        return SimpleNamespace(to_string=lambda _: data)


class Numbered(ZeroEncryptor):
    """Its zeros are numbers, each once, and take no time. In use from the start."""

    def __init__(self, byte_count: int = 1) -> None:
        self.ready = deque[ReadyZero]()
        self.zero_bytes = byte_count
        self.last_use, self.is_supplied = now(), False
        self._encryptor, self._shape = cast(_seal.Encryptor, Numbers()), (1, 1, 1)


class Careless(Numbered):
    """Looks at a zero before it removes one: another thread may look at the same."""

    def encrypt(self) -> NDArray[np.uint64]:
        try:
            zero = self.ready[0]
            os.sched_yield()
            self.ready.popleft()
        except IndexError:
            return super().encrypt()
        return zero.value


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of ready zeros, which stands still unless a test moves it."""
    clock = Clock()
    for module in (zero_encryptor, ready_zeros):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def real() -> ZeroEncryptor:
    """One with SEAL's zeros."""
    return ZeroEncryptor.under_a_random_key(SMALLEST)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def filled(zeros: ReadyZeros, *, idle: Callable[[], float] = IDLE, most: int = 200) -> int:
    """Look until no zero is wanted; return how many were made."""
    for made in range(most):
        if zeros.look(idle) != ready_zeros._PAUSE_SECONDS:
            return made
    raise AssertionError("there is no end")


# Each once


def handed_out(encryptor: Numbered, threads: int, takes: int, ready: int) -> list[int]:
    """What so many threads get, while others make zeros, drop old ones and drop all."""
    zeros, found, barrier = ReadyZeros(4 * ready), list[list[int]](), threading.Barrier(threads + 2)
    zeros.supply("alice", encryptor)
    stop = threading.Event()

    def take() -> None:
        barrier.wait()
        found.append([encryptor.encrypt().item() for _ in range(takes)])

    def make() -> None:
        barrier.wait()
        while not stop.is_set():
            zeros.look(IDLE)

    def drop() -> None:
        barrier.wait()
        while not stop.is_set():
            encryptor.drop_old(now() - 1.0)
            if len(encryptor.ready) > ready // 2:
                encryptor.ready.clear()

    with ThreadPoolExecutor(threads + 2) as pool:
        others = [pool.submit(make), pool.submit(drop)]
        for taken in [pool.submit(take) for _ in range(threads)]:
            taken.result(HANG_SECONDS)
        stop.set()
        for other in others:
            other.result(HANG_SECONDS)
    return [number for numbers in found for number in numbers]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(threads=st.integers(1, 12), takes=st.integers(1, 200), ready=st.integers(1, 16))
@pytest.mark.usefixtures("switching")
def test_no_two_threads_get_the_same_zero(threads: int, takes: int, ready: int) -> None:
    numbers = handed_out(Numbered(), threads, takes, ready)
    assert len(numbers) == threads * takes
    assert len(set(numbers)) == len(numbers)


@pytest.mark.usefixtures("switching")
def test_looking_before_removing_would_be_found() -> None:
    repeated = 0
    for _ in range(20):
        numbers = handed_out(Careless(), 8, 500, 16)
        repeated += len(numbers) - len(set(numbers))
        if repeated:
            return
    pytest.fail("what the test above looks for is never there")


def test_all_of_seals_zeros_are_different_ready_or_not(real: ZeroEncryptor) -> None:
    for _ in range(8):
        real.make_ready()
    with ThreadPoolExecutor(4) as pool:
        values = [value.tobytes() for value in pool.map(lambda _: real.encrypt(), range(12))]
    assert len(set(values)) == 12
    assert not real.ready


def test_the_oldest_is_used_first_and_none_is_looked_at_twice(clock: Clock) -> None:
    encryptor = Numbered()
    for _ in range(3):
        encryptor.make_ready()
        clock.now += 1.0
    assert [encryptor.encrypt().item() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_the_noise_is_drawn_when_a_zero_is_used(real: ZeroEncryptor) -> None:
    width = 1 << 40
    rerandomizer, prime = Rerandomizer(SMALLEST, width), SMALLEST.data_primes[0]
    value = np.zeros((2, len(SMALLEST.data_primes), SMALLEST.poly_modulus_degree), np.uint64)
    kept, c1, places = value[None, 0, :, :100], value[None, 1], np.arange(100, dtype=np.intp)
    found = []
    for _ in range(2):
        real.ready.append(ReadyZero(value, now(), os.getpid()))
        first, _ = rerandomizer.rerandomize(real, kept, c1, places)
        found.append((first[0, 0].astype(object) + width) % prime)
    assert not real.ready
    assert max(found[0].max(), found[1].max()) <= 2 * width
    assert (found[0] != found[1]).all()


# Of one process, and young


def test_a_forked_child_has_none_of_its_parents_zeros(real: ZeroEncryptor) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        real.make_ready()
    parents = [zero.value.tobytes() for zero in real.ready]
    ours, theirs = context.Pipe(duplex=False)

    def use() -> None:
        own = [real.encrypt().tobytes()]
        real.make_ready()
        theirs.send([*own, real.encrypt().tobytes(), len(real.ready)])

    child = context.Process(target=use, daemon=True)
    child.start()
    try:
        assert ours.poll(HANG_SECONDS)
        *childs, left = ours.recv()
    finally:
        child.kill()
        child.join()
    assert left == 0, "those of its own it uses"
    assert not set(childs) & set(parents)
    assert [real.encrypt().tobytes() for _ in range(2)] == parents


def test_a_zero_is_used_for_a_minute(clock: Clock) -> None:
    encryptor = Numbered()
    encryptor.make_ready()
    clock.now += MAX_AGE_SECONDS - 0.01
    encryptor.make_ready()
    assert encryptor.encrypt().item() == 0
    clock.now += MAX_AGE_SECONDS
    assert encryptor.encrypt().item() == 2, "a new one: the one that is too old is gone"
    assert not encryptor.ready


def test_zeros_that_are_too_old_are_dropped_and_made_anew(clock: Clock) -> None:
    zeros, encryptor = ReadyZeros(16), Numbered()
    zeros.supply("alice", encryptor)
    assert filled(zeros) == 4
    clock.now += MAX_AGE_SECONDS - 1.0
    encryptor.last_use = clock.now
    encryptor.encrypt()
    assert filled(zeros) == 1
    clock.now += 1.0
    assert filled(zeros) == 3
    assert {zero.made for zero in encryptor.ready} == {clock.now, clock.now - 1.0}


# For keys in use


def test_a_key_that_is_not_used_for_a_minute_has_none(clock: Clock) -> None:
    telemetry = Telemetry()
    zeros, encryptor = ReadyZeros(16, telemetry=telemetry), Numbered(10)
    zeros.supply("alice", encryptor)
    clock.now += MAX_AGE_SECONDS - 1.0  # since its last use
    assert filled(zeros) == 4
    assert telemetry.registry.get_sample_value("sealserve_ready_zero_bytes") == 40
    clock.now += 1.0
    assert filled(zeros) == 0
    assert not encryptor.ready
    assert not encryptor.is_supplied, "the next use has it supplied again"
    assert telemetry.registry.get_sample_value("sealserve_ready_zero_bytes") == 0
    encryptor.last_use = clock.now
    zeros.supply("alice", encryptor)
    assert filled(zeros) == 4


def test_the_zeros_of_a_key_that_is_gone_are_gone(real: ZeroEncryptor) -> None:
    zeros, encryptor = ReadyZeros(16), ZeroEncryptor.under_a_random_key(SMALLEST)
    encryptor.last_use = real.last_use = now()
    zeros.supply("alice", encryptor)
    zeros.supply("bob", real)
    assert filled(zeros) == 8
    values = [weakref.ref(zero.value) for zero in encryptor.ready]
    gc.disable()
    try:
        del encryptor
        assert [value() for value in values] == [None] * 4
    finally:
        gc.enable()
    assert filled(zeros) == 0
    assert len(real.ready) == 4


# So many


def test_a_tenant_has_a_quarter_and_its_keys_have_equal_parts(clock: Clock) -> None:
    zeros, keys = ReadyZeros(16), [Numbered() for _ in range(3)]
    for tenant, key in zip(("alice", "alice", "bob"), keys, strict=True):
        zeros.supply(tenant, key)
    assert filled(zeros) == 8
    assert [len(key.ready) for key in keys] == [2, 2, 4]


def test_a_process_has_no_more_than_its_number() -> None:
    zeros, keys = ReadyZeros(10), [Numbered() for _ in range(9)]
    for number, key in enumerate(keys):
        zeros.supply(f"tenant {number}", key)
    assert filled(zeros) == 10
    assert sorted(len(key.ready) for key in keys) == [1] * 8 + [2]


@pytest.mark.parametrize(("max_count", "expected"), [(1, 1), (3, 3), (4, 4)])
def test_few_zeros_are_shared_one_by_one(max_count: int, expected: int) -> None:
    zeros, keys = ReadyZeros(max_count), [Numbered() for _ in range(5)]
    for number, key in enumerate(keys):
        zeros.supply(f"tenant {number}", key)
    assert filled(zeros) == expected
    assert max(len(key.ready) for key in keys) == 1


def test_bytes_are_bounded_of_a_tenant_and_of_the_process() -> None:
    zeros, keys = ReadyZeros(1000, max_bytes=400), [Numbered(30) for _ in range(6)]
    zeros.supply("alice", keys[0])
    assert filled(zeros) == 3, "100 bytes have room for three"
    for number, key in enumerate(keys):
        zeros.supply(f"tenant {number}", key)
    assert filled(zeros) == 13 - 3, "and 400 for thirteen"


def test_a_zero_too_large_for_a_tenants_part_is_not_made() -> None:
    zeros = ReadyZeros(1000, max_bytes=119)
    zeros.supply("alice", Numbered(30))
    key = Numbered(29)
    zeros.supply("bob", key)
    assert filled(zeros) == len(key.ready) == 1


@pytest.mark.parametrize("parameter_set", [SMALLEST, LARGEST], ids=lambda each: each.name)
def test_the_bytes_of_a_zero_are_those_of_its_residues(parameter_set: Any) -> None:
    encryptor = ZeroEncryptor.under_a_random_key(parameter_set)
    encryptor.make_ready()
    (zero,) = encryptor.ready
    assert encryptor.zero_bytes == zero.value.nbytes
    whole: Any = zero.value
    while not isinstance(whole, bytes):
        whole = whole.base
    assert sys.getsizeof(whole) - encryptor.zero_bytes < 200, "nothing else is kept alive"


def test_of_many_keys_of_a_tenant_those_that_were_used_last_have_zeros(clock: Clock) -> None:
    """However many keys a tenant uses, there are few to look at."""
    zeros, others = ReadyZeros(16), Numbered()
    zeros.supply("bob", others)
    keys = list[Numbered]()
    for _ in range(100):
        clock.now += 0.1
        keys.append(Numbered())
        zeros.supply("alice", keys[-1])
    assert filled(zeros) == 8
    assert len(others.ready) == 4
    assert [len(key.ready) for key in keys] == [0] * 96 + [1] * 4
    assert [key.is_supplied for key in keys] == [False] * 96 + [True] * 4
    assert len(zeros._tenants) == 5


# When nothing waits


def test_none_is_made_while_an_item_is_computed_or_was_just_now() -> None:
    zeros, encryptor, idle = ReadyZeros(16), Numbered(), [0.0]
    zeros.supply("alice", encryptor)
    pauses = [zeros.look(lambda: idle[0]) for _ in range(20)]
    assert not encryptor.ready
    assert pauses == sorted(pauses), "it looks less and less often"
    assert 0 < pauses[0] < pauses[-1] <= 0.01
    idle[0] = 0.0004
    assert 0 < zeros.look(lambda: idle[0]) <= 0.0006 + 1e-9, "it looks again when the last reply has gone"
    assert not encryptor.ready
    idle[0] = 0.001
    assert zeros.look(lambda: idle[0]) > 0, "a call that has come meanwhile is received first"
    assert len(encryptor.ready) == 1, "one at a time"


def test_a_thread_makes_them_until_the_server_stops() -> None:
    zeros, encryptor, stopping, idle = ReadyZeros(16), Numbered(), threading.Event(), [0.0]
    thread = threading.Thread(target=zeros.keep, args=(lambda: idle[0], stopping), daemon=True)
    thread.start()
    try:
        zeros.supply("alice", encryptor)
        wait_until(lambda: zeros._tenants)
        assert not encryptor.ready
        idle[0] = 1.0
        wait_until(lambda: len(encryptor.ready) == 4)
        encryptor.encrypt()
        wait_until(lambda: len(encryptor.ready) == 4)
    finally:
        stopping.set()
        thread.join(HANG_SECONDS)
    assert not thread.is_alive()


def test_a_fault_of_seals_makes_none_and_ends_nothing(
    real: ZeroEncryptor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, stopping = [True], threading.Event()

    class Encryptor:
        def encrypt_zero(self) -> Any:
            if failing[0]:
                raise RuntimeError("std::bad_alloc")
            return made.encrypt_zero()

    made = real._encryptor
    monkeypatch.setattr(real, "_encryptor", Encryptor())
    monkeypatch.setattr(ready_zeros, "_FAULT_SECONDS", 0.05)
    zeros, real.last_use = ReadyZeros(16), now()
    zeros.supply("alice", real)
    with pytest.raises(_seal.SealError):
        zeros.look(IDLE)
    thread = threading.Thread(target=zeros.keep, args=(IDLE, stopping), daemon=True)
    with caplog.at_level(logging.WARNING):
        thread.start()
        try:
            wait_until(lambda: caplog.records)
            assert not real.ready
            failing[0] = False
            wait_until(lambda: len(real.ready) == 4)
        finally:
            stopping.set()
            thread.join(HANG_SECONDS)
    assert "no encryptions of zero are made ready" in caplog.text
