"""How calls end: OK, or the name of their status."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

THREADS = 4
REQUESTS_IN_MEMORY = 1_000  # a pool takes all that it is given at once


def end_of(action: Callable[[], object]) -> str:
    """How a call ends: OK, or the name of its status.

    A fault of the server, or a hang, fails the test.
    """
    try:
        action()
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return str(error.code().name)
    return "OK"


def ends_of(send: Callable[[Any], object], requests: Iterable[Any]) -> Counter[str]:
    """Send requests from several threads at once and count how they end."""
    ends, left = Counter[str](), iter(requests)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(left, REQUESTS_IN_MEMORY)):
            ends.update(pool.map(lambda request: end_of(lambda: send(request)), some))
    return ends
