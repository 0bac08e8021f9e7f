"""The item of a unary call: it is scored in one turn, and the bytes that it holds are released."""

import dataclasses
import math

import numpy as np
import pytest

from sealserve._codec.codec import RowCodec
from sealserve.errors import InputMismatchError, MalformedCiphertextError, QuotaExceededError
from sealserve.protocol.wire import scores_from_proto
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.item import ScoringItem
from sealserve_service.scoring.turns import CallEnd, Waiter
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.raw import assert_error
from tests.support.serving import linear, served

RANDOM = np.random.default_rng(5)
MODEL = linear(RANDOM.normal(size=(2, 4096)))
SERVED = served("blocks", MODEL)  # two ciphertexts an item
CODEC = RowCodec(SERVED.model)
ROW = RANDOM.random((1, 4096))
ITEM = CODEC.encrypt(CODEC.quantize(ROW).integers)
FIRST, SECOND = ITEM.ciphertexts


class Service:
    """What an item needs, and the bytes that are held."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.telemetry = Telemetry()
        self.admission = Admission(max_bytes, telemetry=self.telemetry)

    def item(self) -> ScoringItem:
        return ScoringItem(
            ITEM.header, ModelRegistry([SERVED]), ANONYMOUS, self.admission, Waiter("alice", CallEnd().call_back)
        )

    @property
    def held_bytes(self) -> float | None:
        return self.telemetry.registry.get_sample_value("sealserve_held_bytes")


def test_an_item_is_scored_at_once() -> None:
    service = Service()
    item = service.item()
    group, done = item.score([FIRST, SECOND])
    scores = CODEC.decrypt(1, list(scores_from_proto(group)))
    offer = SERVED.model.offers[0]
    assert np.abs(scores - MODEL.decision(ROW)).max() <= offer.score_error_bound
    assert done.server_seconds == pytest.approx(item.work.seconds)
    assert min(item.work.load_seconds, item.work.arithmetic_seconds, item.work.reply_seconds) > 0
    assert service.held_bytes == 0


@pytest.mark.parametrize(
    ("is_private", "seconds", "told"),
    [
        (False, 0.003, 0.003),
        (True, 0.003, 2**-8),
        (True, 0.0039, 2**-8),
        (True, 2**-8, 2**-7),
        (True, 0.0040, 2**-7),
    ],
)
def test_with_private_weights_its_seconds_are_coarse(is_private: bool, seconds: float, told: float) -> None:
    item = Service().item()
    item.offer = dataclasses.replace(item.offer, private_weights=is_private)
    item.work.load_seconds, item.work.arithmetic_seconds = seconds / 4, seconds * 3 / 4
    assert item.done().server_seconds == told


def test_with_private_weights_an_item_at_once_has_coarse_seconds_too() -> None:
    item = Service().item()
    item.offer = dataclasses.replace(item.offer, private_weights=True)
    _, done = item.score([FIRST, SECOND])
    told = done.server_seconds
    assert math.frexp(told)[0] == 0.5, "a power of two"
    assert told / 2 <= item.work.seconds < told


@pytest.mark.parametrize("ciphertexts", [[], [FIRST], [FIRST, SECOND, FIRST]])
def test_an_item_has_all_its_ciphertexts(ciphertexts: list[bytes]) -> None:
    service = Service()
    with pytest.raises(InputMismatchError) as caught:
        service.item().score(ciphertexts)
    assert_error(caught.value, InputMismatchError("ciphertexts", 2, len(ciphertexts)))
    assert service.held_bytes == 0


def test_an_item_that_fails_holds_nothing() -> None:
    service = Service()
    with pytest.raises(MalformedCiphertextError):
        service.item().score([FIRST, SECOND[:-1]])
    assert service.held_bytes == 0
    service.item().score([FIRST, SECOND])


def test_an_item_without_room_or_time_is_refused() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        Service(max_bytes=100).item().score([FIRST, SECOND])
    assert caught.value.quota == "server_bytes"
    service = Service()
    with pytest.raises(QuotaExceededError) as caught:
        service.item().score([FIRST, SECOND], 0.0)
    assert caught.value.quota == "deadline"
    assert service.held_bytes == 0
