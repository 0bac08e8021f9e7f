"""Streams of rows, from threads and from coroutines, and what must come of them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from numpy.typing import NDArray

from sealserve.aio import AsyncClient
from sealserve.client import Client
from tests.support.serving import HANG_SECONDS

Streamed = Callable[..., list[tuple[int, Any]]]


def streamed(address: str, rows: Any, *, rows_per_item: int | None = None, **settings: Any) -> list[tuple[int, Any]]:
    """All results of a stream of threads."""
    with Client(address, **({"timeout_seconds": HANG_SECONDS} | settings)) as client:
        return list(client.stream(rows, rows_per_item=rows_per_item))


def streamed_aio(
    address: str, rows: Any, *, rows_per_item: int | None = None, **settings: Any
) -> list[tuple[int, Any]]:
    """All results of a stream of coroutines."""

    async def main() -> list[tuple[int, Any]]:
        async with AsyncClient(address, **({"timeout_seconds": HANG_SECONDS} | settings)) as client:
            return [result async for result in client.stream(rows, rows_per_item=rows_per_item)]

    return asyncio.run(main())


def timed(stream: Streamed, address: str, rows: Any) -> tuple[list[tuple[int, Any]], list[float]]:
    """All results of a stream, and when each arrived, by time.monotonic()."""
    arrived = list[float]()
    if stream is streamed:
        with Client(address, timeout_seconds=HANG_SECONDS) as client:
            found = []
            for result in client.stream(rows):
                arrived.append(time.monotonic())
                found.append(result)
            return found, arrived

    async def main() -> list[tuple[int, Any]]:
        found = []
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS) as client:
            async for result in client.stream(rows):
                arrived.append(time.monotonic())
                found.append(result)
        return found

    return asyncio.run(main()), arrived


both = pytest.mark.parametrize("stream", [streamed, streamed_aio], ids=["threads", "asyncio"])


def assert_complete(results: list[tuple[int, Any]], expected: NDArray[Any]) -> None:
    assert sorted(index for index, _ in results) == list(range(len(expected))), "none missing, none twice"
    assert [dict(results)[index] for index in range(len(expected))] == expected.tolist()
