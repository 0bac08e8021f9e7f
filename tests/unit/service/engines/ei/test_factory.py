"""The factory of EI engines: one for each choice that the operator has."""

import numpy as np
import pytest

from sealserve.errors import KeyNotFoundError
from sealserve.he._seal import GaloisKeys
from sealserve.he.quantization import InputGrid
from sealserve_service.engines.ei import factory
from sealserve_service.engines.ei.eiserver import EIServerEngine
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.settings.options import OPTIONS
from tests.support.serving import linear

MODEL = linear(np.ones((2, 3)), np.zeros(2))
GRID = InputGrid.of(3, 0.0, 1.0)


class NoKeys:
    def read(self, owner: str, key_id: str, /) -> bytes:
        raise KeyNotFoundError(key_id)

    def galois_keys(self, owner: str, key_id: str, /) -> GaloisKeys:
        raise KeyNotFoundError(key_id)


class Processes:
    """Stands in for processes that need encrypted-inference."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_every_choice_of_the_option_has_a_factory() -> None:
    (option,) = (option for option in OPTIONS if option.name == "ei_engine")
    assert set(option.choices) == {"none", *factory._FACTORIES}


def test_without_an_engine_there_is_no_factory() -> None:
    with factory.ei_engine_factory("none", NoKeys()) as make:
        assert make is None


def test_both_engines_offer_the_same_but_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes()
    monkeypatch.setattr(factory, "EIServerProcesses", lambda: processes)
    with (
        factory.ei_engine_factory("seal", NoKeys()) as make_seal,
        factory.ei_engine_factory("eiserver", NoKeys()) as make_eiserver,
    ):
        assert make_seal is not None
        assert make_eiserver is not None
        seal, eiserver = make_seal(MODEL, GRID), make_eiserver(MODEL, GRID)
        assert isinstance(seal, EiSlotsEngine)
        assert isinstance(eiserver, EIServerEngine)
        assert eiserver.offer.parameters == seal.offer.parameters
        assert eiserver.offer.layout is seal.offer.layout
        assert eiserver.offer.cost.server_seconds == 1.5 * MODEL.score_count
        assert not processes.is_closed
    assert processes.is_closed
