"""The factory of EI engines: the one of the two engines that an operator has chosen.

To add an engine for encrypted-inference clients, write it in this package, and enter what makes it
in `_FACTORIES` and its name in the option `ei_engine`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

from sealserve.he._seal import GaloisKeys
from sealserve.he.quantization import InputGrid
from sealserve_service.engines.base import Engine
from sealserve_service.engines.ei.eiserver import EIServerEngine
from sealserve_service.engines.ei.eiserver_processes import EIServerProcesses
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.models.linear_model import LinearModel

EngineFactory = Callable[[LinearModel, InputGrid], Engine]
"""Makes the engine of a model for encrypted-inference clients; raises PlanError."""

_EISERVER_SECONDS_A_CLASS = 1.5


class EvaluationKeys(Protocol):
    """Finds registered evaluation keys by the owner's name and the key id.

    Both methods raise KeyNotFoundError if the owner has no such keys.
    """

    def read(self, owner: str, key_id: str, /) -> bytes:
        """Return the bytes of the keys."""

    def galois_keys(self, owner: str, key_id: str, /) -> GaloisKeys:
        """Return the Galois keys, ready for use."""


@contextlib.contextmanager
def ei_engine_factory(name: str, keys: EvaluationKeys) -> Iterator[EngineFactory | None]:
    """Yield the factory of the engine of a name, "seal" or "eiserver"; None for "none".

    At the end of the context it stops the processes that the engines use.
    """
    if name == "none":
        yield None
        return
    with _FACTORIES[name](keys) as factory:
        yield factory


@contextlib.contextmanager
def _seal(keys: EvaluationKeys) -> Iterator[EngineFactory]:
    yield lambda model, grid: EiSlotsEngine(model.weights, model.intercept, grid, keys.galois_keys)


@contextlib.contextmanager
def _eiserver(keys: EvaluationKeys) -> Iterator[EngineFactory]:
    with contextlib.closing(EIServerProcesses()) as processes, _seal(keys) as seal:

        def make(model: LinearModel, grid: InputGrid) -> EIServerEngine:
            # Clients see the same offer: only the time differs.
            offer = seal(model, grid).offer
            cost = dataclasses.replace(offer.cost, server_seconds=_EISERVER_SECONDS_A_CLASS * model.score_count)
            offer = dataclasses.replace(offer, cost=cost)
            return EIServerEngine(model.weights, model.intercept, offer, keys.read, processes)

        yield make


_FACTORIES = {"seal": _seal, "eiserver": _eiserver}
