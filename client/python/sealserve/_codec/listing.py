"""Listing: the pages of a list that a service sends, within bounds. No I/O."""

from collections.abc import Sequence

from sealserve.errors import ParameterError
from sealserve.protocol.text import printable

MAX_ENTRIES = 10_000
MAX_BYTES = 64 << 20
MAX_VALUES = 1 << 23
"""The most features and scores of all listed models: a few bytes may describe a million."""


class Listing:
    """The pages of one list so far. A hostile service might never stop.

    Args:
        seconds: how long the service may take for all pages together.

    Attributes:
        page_token: the token of the next page.
        is_complete: whether there is no other page.
        seconds_left: what is left of `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self.page_token = ""
        self.is_complete = False
        self.seconds_left = seconds
        self._last_name = ""
        self._entries = self._bytes = self._values = 0

    def spend(self, seconds: float) -> None:
        """Count the time that a page took."""
        self.seconds_left = max(0.0, self.seconds_left - seconds)

    def receive(self, names: Sequence[str], next_page_token: str, *, byte_count: int, value_count: int = 0) -> None:
        """Check and count a page, before its entries are converted.

        Args:
            names: the names or ids of its entries.
            next_page_token: the token of the page after it; "" if it is the last.
            byte_count: the length of its message.
            value_count: how many features and scores its models describe.

        Raises:
            ParameterError: the list is too long, is not in order, or does not go on.
        """
        for name in names:
            if name <= self._last_name:
                raise ParameterError(
                    f"the service's list is not in order at {printable(name)!r}: make sure that you trust the service"
                )
            self._last_name = name
        self._entries += len(names)
        self._bytes += byte_count
        self._values += value_count
        is_stuck = bool(next_page_token) and not names
        if is_stuck or self._entries > MAX_ENTRIES or self._bytes > MAX_BYTES or self._values > MAX_VALUES:
            raise ParameterError("the service's list has no end: make sure that you trust the service")
        self.page_token, self.is_complete = next_page_token, not next_page_token
