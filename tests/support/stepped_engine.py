"""An engine whose items are computed one step at a time, when a test says so."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.base import Engine, Scoring
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until


class SteppedEngine:
    """Scores as another engine does, but each item goes on only after a `step`.

    Args:
        engine: the other one.
        seconds: that an item takes, as the engine announces it.

    Attributes:
        begun: the owners of the items that have had their turn, in its order.
    """

    holds_gil = True

    def __init__(self, engine: Engine, seconds: float) -> None:
        cost = dataclasses.replace(engine.offer.cost, server_seconds=seconds)
        self.offer = dataclasses.replace(engine.offer, cost=cost)
        self.begun: list[str] = []
        self._engine = engine
        self._steps = threading.Semaphore(0)

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        """Begin an item."""
        return _SteppedScoring(self, self._engine.begin(header, owner), owner)

    def step(self, count: int = 1) -> None:
        """Let items go on, one after the other, and wait until they have begun."""
        for _ in range(count):
            known = len(self.begun)
            self._steps.release()
            wait_until(lambda known=known: len(self.begun) > known)  # type: ignore[misc]

    def end(self) -> None:
        """Let all items go on."""
        self._steps.release(1000)

    def compute(self, owner: str) -> None:
        """Have the turn of an owner's item until a step."""
        self.begun.append(owner)
        assert self._steps.acquire(timeout=HANG_SECONDS)


@dataclasses.dataclass
class _SteppedScoring:
    engine: SteppedEngine
    scoring: Scoring
    owner: str

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        self.engine.compute(self.owner)
        self.scoring.add(ciphertexts)

    def finish(self) -> Iterator[Any]:
        return self.scoring.finish()
