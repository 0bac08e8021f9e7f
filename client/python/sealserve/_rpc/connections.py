"""A client's connections: each in a numbered place, and replaced there by another once it is broken."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class Connections(Generic[C]):
    """Opens connections as they are used, closes those that were replaced once nobody uses them any more.

    Args:
        open_one, close_one: of what kind they are.
    """

    def __init__(self, open_one: Callable[[], C], close_one: Callable[[C], None]) -> None:
        self._open_one = open_one
        self._close_one = close_one
        self._lock = threading.Lock()
        self._places: dict[int, C] = {}
        self._uses: Counter[C] = Counter()

    @contextmanager
    def use(self, number: int) -> Iterator[C]:
        """Use the connection of a place, which is opened if there is none."""
        with self._lock:
            if number not in self._places:
                self._places[number] = self._open_one()
            connection = self._places[number]
            self._uses[connection] += 1
        try:
            yield connection
        finally:
            with self._lock:
                self._uses[connection] -= 1
                self._forget_unused()

    def replace(self, connection: C) -> None:
        """Have whoever comes next use another one in its place."""
        with self._lock:
            self._places = {number: kept for number, kept in self._places.items() if kept is not connection}
            self._forget_unused()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for connection in {*self._places.values(), *self._uses}:
                self._close_one(connection)
            self._places.clear()
            self._uses.clear()

    def _forget_unused(self) -> None:
        """Close what has no place and no user."""
        placed = set(map(id, self._places.values()))
        for connection in [c for c, uses in self._uses.items() if not uses and id(c) not in placed]:
            del self._uses[connection]
            self._close_one(connection)
