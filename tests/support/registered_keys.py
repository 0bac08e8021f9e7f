"""Keys for the tests of key stores, and other processes that put them into a store.

The module imports little, because those processes are started often.
"""

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sealserve.protocol.key_record import KeyKind, KeyRecord

HOUR = timedelta(hours=1)
_PROGRAM = """
import contextlib, sys
from sealserve.errors import QuotaExceededError
from tests.support.registered_keys import *
data = bytes.fromhex(sys.stdin.readline())
{preparation}
print("ready", flush=True)
sys.stdin.readline()
with contextlib.suppress(QuotaExceededError):
    kept = store.put(record_of(data, lives={hours} * HOUR), data, {max_tenant_bytes})
    print(kept.create_time.isoformat())
store.close()
"""


class Hours:
    """A clock of keys, which stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def record_of(
    data: bytes, tenant: str = "alice", lives: timedelta = HOUR, created: datetime | None = None
) -> KeyRecord:
    """The record of a key of any bytes, created now unless another time is given."""
    created = created or datetime.now(UTC)
    return KeyRecord(
        tenant=tenant,
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.EVALUATION_KEYS,
        parameter_set="ei-8192",
        byte_count=len(data),
        create_time=created,
        expire_time=created + lives,
    )


@contextlib.contextmanager
def putting_process(
    preparation: str, data: bytes, hours: int = 1, max_tenant_bytes: float | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Have another process put a key into a store, once `let_put` tells it to.

    Args:
        preparation: a program that assigns the store to `store`.
        data: the key.
        hours: how long it lives.
        max_tenant_bytes: the quota of its tenant, if it has one.
    """
    program = _PROGRAM.format(preparation=preparation, hours=hours, max_tenant_bytes=max_tenant_bytes)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        process.stdin.write(data.hex() + "\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def let_put(processes: list["subprocess.Popen[str]"], timeout_seconds: float) -> list[str]:
    """Let processes put their keys at the same time.

    Returns:
        The create_times that they were told, "" for one that died or whose key was refused.
    """
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=timeout_seconds)[0].strip() for process in processes]
