"""An asyncio client: many tasks of one program, such as those of a web server, share one client.

It answers a request for each row of a file.

python examples/asyncio_client.py rows.csv
"""

import asyncio
import os
import sys

import pandas as pd

from sealserve import AsyncClient
from sealserve.errors import InputError, TransportError


async def answer(client: AsyncClient, row: pd.DataFrame) -> str:
    """Answer one request: the probability of the last class, or why there is none."""
    try:
        probabilities = await client.predict_proba(row, timeout_seconds=10)
    except InputError as error:  # the caller's fault
        return f"not a valid row: {error}"
    except TransportError:  # nobody's fault, after all retries
        return "try again later"
    return f"{probabilities[0, -1]:.3f}"


async def main() -> None:
    """Answer a request for each row of the file, at most 8 at once."""
    rows = pd.read_csv(sys.argv[1])
    at_once = asyncio.Semaphore(8)
    async with AsyncClient(os.environ.get("SEALSERVE_ADDRESS", "127.0.0.1:50051"), model="tumors") as client:

        async def one(number: int) -> str:
            async with at_once:
                return await answer(client, rows[number : number + 1])

        print(*await asyncio.gather(*map(one, range(len(rows)))), sep="\n")


asyncio.run(main())
