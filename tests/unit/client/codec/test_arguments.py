"""Numbers that callers pass: taken as they are meant, or refused with the argument's name."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sealserve._codec.arguments import MAX_PARALLEL, NO_LIMIT_SECONDS, count_of, timeout_of
from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import InputError
from sealserve.key_registry import KeyRegistry

NO_TIME = [float("nan"), -1, -0.001, float("-inf"), "5", None, True, 1j, np.float64("nan")]
NO_COUNT = [0, -1, 1.0, float("inf"), float("nan"), "2", True, 10**9]


@pytest.mark.parametrize("seconds", [0, 1, 0.5, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_times_are_seconds(seconds: Any) -> None:
    assert timeout_of(seconds) == float(seconds)
    assert type(timeout_of(seconds)) is float


@pytest.mark.parametrize("seconds", [float("inf"), np.inf, 2**33, 2.0**40, 1e300, 10**400], ids=range(6))
def test_very_long_times_are_no_limit(seconds: Any) -> None:
    assert timeout_of(seconds) == NO_LIMIT_SECONDS


@pytest.mark.parametrize("seconds", NO_TIME)
def test_what_is_no_time_is_refused_by_name(seconds: Any) -> None:
    with pytest.raises(InputError, match=r"^ttl_seconds must be a number of seconds"):
        timeout_of(seconds, "ttl_seconds")


@pytest.mark.parametrize("count", [1, np.int64(7), np.uint8(1), MAX_PARALLEL])
def test_counts_are_whole(count: Any) -> None:
    assert count_of(count, "connections", least=1, most=MAX_PARALLEL) == int(count)


@pytest.mark.parametrize("count", NO_COUNT)
def test_what_is_no_count_is_refused_by_name(count: Any) -> None:
    with pytest.raises(InputError, match=r"^connections must be "):
        count_of(count, "connections", least=1, most=MAX_PARALLEL)


@pytest.mark.parametrize("make", [Client, AsyncClient, EIClient, KeyRegistry])
@pytest.mark.parametrize("seconds", NO_TIME)
def test_every_client_refuses_a_timeout_at_once(make: Any, seconds: Any) -> None:
    with pytest.raises(InputError, match="timeout_seconds must be"):
        make("127.0.0.1:1", timeout_seconds=seconds)


@pytest.mark.parametrize("make", [Client, AsyncClient, EIClient, KeyRegistry])
@pytest.mark.parametrize("address", ["", "localhost", "127.0.0.1:70000", "https://localhost:1", "::1:50051", "unix:"])
def test_every_client_refuses_an_address_at_once(make: Any, address: str) -> None:
    with pytest.raises(InputError, match="unix:PATH"):
        make(address)


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("name", "value"),
    [*(("connections", count) for count in NO_COUNT), *(("encrypt_processes", count) for count in NO_COUNT if count)],
)
def test_clients_refuse_counts_at_once(make: Any, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} must be "):
        make("127.0.0.1:1", **{name: value})
