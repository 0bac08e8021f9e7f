"""Arguments: the numbers that callers pass, checked before they are used."""

from numbers import Integral, Real
from typing import Any

from sealserve.errors import InputError

NO_LIMIT_SECONDS = 100 * 365 * 86_400.0
"""What stands for infinity: a century. Locks take at most 2^33 s, and gRPC no infinity."""

MAX_PARALLEL = 1024
"""The most connections, or processes, that a client may be asked for."""


def timeout_of(seconds: Any, name: str = "timeout_seconds") -> float:
    """Return a time-out that can be waited for; infinity and more than a century are no limit.

    Raises:
        InputError: it is not a number, or below 0.
    """
    is_number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if not is_number or not seconds >= 0:
        raise InputError(f"{name} must be a number of seconds, at least 0, or infinity for no limit, not {seconds!r}")
    return float(seconds) if seconds <= NO_LIMIT_SECONDS else NO_LIMIT_SECONDS


def count_of(number: Any, name: str, *, least: int, most: int | None = None) -> int:
    """Return a whole number that a caller passed, as an int.

    Raises:
        InputError: it is not a whole number, or out of range.
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise InputError(f"{name} must be a whole number, not {number!r}")
    count = int(number)
    if count < least:
        raise InputError(f"{name} must be at least {least}, not {count}")
    if most is not None and count > most:
        raise InputError(f"{name} must be at most {most}, not {count}")
    return count
