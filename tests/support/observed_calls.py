"""Observed calls: what a user asks of a client, and what a hostile service does meanwhile.

Tests compare what the service sees of a client: the same, whatever the rows and the replies hold.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.errors import KeyNotFoundError, StaleConfigError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Model
from sealserve.protocol.schema import Schema
from tests.support.recording_service import Answer, RecordingService, Sent, accepted, refused
from tests.support.serving import linear, served

Rows = NDArray[np.float64]

FEATURES = 3
RANDOM = np.random.default_rng(15)
# Errors name columns by the service's own words, which are as long as they may be.
NAMES = tuple(f"{number}\x1b\n'\"\u202e" * 300 for number in range(FEATURES))
OPEN = dataclasses.replace(served("line", linear(np.ones((2, FEATURES)))).model, schema=Schema(FEATURES, NAMES))
GOOD = RANDOM.random((16, FEATURES))


def of_rows(model: Model, count: int) -> Rows:
    """So many items of rows."""
    return np.resize(GOOD, ((count - 1) * model.offers[0].rows_per_item + 5, FEATURES))


# What a user does


def _sent(client: Client, rows: Rows, errors: Any = "raise") -> None:
    client.register_key()
    client.decrypt(client.send(client.encrypt(rows)), errors=errors)


CALLS: dict[str, Callable[[Client, Model, Callable[[Rows], Rows]], Any]] = {
    "predict, a row": lambda client, _, spoil: client.predict(spoil(GOOD[:1])),
    "predict, an item": lambda client, _, spoil: client.predict(spoil(GOOD)),
    "predict, returning errors": lambda client, _, spoil: client.predict(spoil(GOOD), errors="return"),
    "predict, items": lambda client, model, spoil: client.predict(spoil(of_rows(model, 4))),
    "scored, items, returning errors": lambda client, model, spoil: client.scored(
        spoil(of_rows(model, 4)), errors="return"
    ),
    "stream, array": lambda client, _, spoil: list(client.stream(spoil(GOOD[:6]))),
    "stream, items of two": lambda client, _, spoil: list(client.stream(iter(spoil(GOOD[:6])), rows_per_item=2)),
    "send": lambda client, _, spoil: _sent(client, spoil(GOOD)),
    "send, returning errors": lambda client, _, spoil: _sent(client, spoil(GOOD), "return"),
}

# What a service does, besides its answers


class Faults:
    """Makes the answers of a service: faults first, then replies that it chooses.

    Args:
        fault: what happens to the items of some numbers.
        reply: makes a reply.
    """

    def __init__(self, fault: str, reply: Callable[[Model, Sent], Answer]) -> None:
        self.fault = fault
        self.reply = reply
        self.service: RecordingService | None = None

    def __call__(self, sent: Sent) -> Answer:
        """Answer an item."""
        assert self.service is not None
        if self.fault == "broken" and sent.number in (0, 2):
            return grpc.StatusCode.UNAVAILABLE
        if self.fault == "stale" and sent.number in (0, 2):
            # A narrower range, and then one that no row of the test is in.
            model = self.service.model
            grid = InputGrid.of(FEATURES, 0.0, 0.5 if sent.number == 0 else 1e-9)
            self.service.model = dataclasses.replace(model, grid=grid, config_id=f"config {sent.number}")
            return StaleConfigError(self.service.model.config_id)
        if self.fault == "two versions" and sent.number < 9:
            # Two that it names in turn, then one that it has never named before.
            model = self.service.model
            grid = InputGrid.of(FEATURES, 0.0, 0.5 if sent.number % 2 else 1e-9)
            config_id = "another" if sent.number == 8 else f"config {sent.number % 2}"
            self.service.model = dataclasses.replace(model, grid=grid, config_id=config_id)
            return StaleConfigError(config_id)
        if self.fault == "denied" and sent.number == 2:
            return grpc.StatusCode.PERMISSION_DENIED
        if self.fault == "key lost" and sent.number == 1:
            return KeyNotFoundError(sent.header.key_id)
        return self.reply(self.service.model, sent)


def some_refused(model: Model, sent: Sent) -> Answer:
    """Replies of which every third fails the check."""
    return (refused if sent.number % 3 == 0 else accepted)(model, sent)


def spoiled(*values: float) -> Callable[[Rows], Rows]:
    """Return a function that puts values into some rows."""

    def spoil(rows: Rows) -> Rows:
        rows = rows.copy()
        rows[:: max(1, len(rows) // 3), 1] = np.resize(values, len(rows[:: max(1, len(rows) // 3)]))
        return rows

    return spoil


VARIANTS: dict[str, tuple[Callable[[Rows], Rows], Callable[[Model, Sent], Answer]]] = {
    "every reply refused": (lambda rows: rows, refused),
    "some replies refused": (lambda rows: rows, some_refused),
    "rows refused": (spoiled(7.0, np.nan, -np.inf), accepted),
    "all rows refused": (lambda rows: np.full_like(rows, np.nan), accepted),
    "rows and replies refused": (spoiled(-1.0), some_refused),
}
PLAIN = (lambda rows: rows, accepted)
