"""A stream: rows that come one by one, and labels that are printed as they arrive.

    generate rows | python examples/stream.py

Rows are lines of comma-separated numbers on stdin. The connection may break in between: no row is
lost, and none comes twice. Labels come in the order in which they are ready, with the number of
their row.
"""

import os
import sys
from collections.abc import Iterator

from sealserve import Client
from sealserve.errors import SealserveError


def rows() -> Iterator[list[float]]:
    """Yield the rows that come on stdin."""
    for line in sys.stdin:
        yield [float(field) for field in line.split(",")]


with Client(os.environ.get("SEALSERVE_ADDRESS", "127.0.0.1:50051"), model="tumors") as client:
    for number, result in client.stream(rows()):
        is_refused = isinstance(result, SealserveError)
        print(f"{number}: {f'no label: {result}' if is_refused else result}", flush=True)
