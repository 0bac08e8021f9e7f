"""A hostile service reads features from whether rows are refused. It no longer can.

The service publishes a range and sees whether the client sends. It decrypts nothing for it. A row
that the range refuses now travels as a dummy, so that the client always sends.
"""

import contextlib
import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve._streaming.schedule import Schedule
from sealserve.client import Client
from sealserve.errors import SealserveError, StaleConfigError
from sealserve.he.quantization import InputGrid, Quantized
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.model import Model
from tests.support.recording_service import Answer, Event, Sent, accepted, described, recording_service
from tests.support.serving import HANG_SECONDS, linear, served

FEATURES = 3
MODEL = described(served("line", linear(np.ones((1, FEATURES)))).model, layout="row")
CALLS = 8
CHANGES = 4  # in each call


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients refuse rows as they did: before anything is sent.

    A stream did not note the configuration that the service has named either: it sent each row in
    vain first.
    """
    quantize = RowCodec.quantize

    def refuse(self: RowCodec, rows: NDArray[np.float64]) -> Quantized:
        quantized = quantize(self, rows)
        if quantized.is_refused.any():
            raise self.refusal(rows)
        return quantized

    monkeypatch.setattr(RowCodec, "quantize", refuse)
    monkeypatch.setattr(Schedule, "change", staticmethod(lambda stream, pending: pending.stale))


def with_range(model: Model, low: float, high: float, config_id: str) -> Model:
    """Describe the range of the first feature."""
    grid = InputGrid.of(FEATURES, [low, 0.0, 0.0], [high, 1.0, 1.0])
    return dataclasses.replace(model, grid=grid, config_id=config_id)


class Bisection:
    """Halves the range in which a feature is, with each description.

    Attributes:
        low, high: the feature is between them.
    """

    def __init__(self) -> None:
        self.low, self.high, self._number = 0.0, 1.0, 0

    @property
    def description(self) -> Model:
        """The lower half of the range."""
        return with_range(MODEL, self.low, (self.low + self.high) / 2, f"{self._number:04}")

    def continue_with(self, *, is_lower: bool) -> None:
        """Note in which half the feature is."""
        middle = (self.low + self.high) / 2
        self.low, self.high = (self.low, middle) if is_lower else (middle, self.high)
        self._number += 1


def bits_read(value: float) -> tuple[float, list[Event]]:
    """Read a feature in a few calls: return how many bits are right, and what the service saw."""
    found, trace = Bisection(), list[Event]()
    row = np.array([[value, 0.5, 0.5]])
    for _ in range(CALLS):

        def answer(sent: Sent) -> Answer:
            found.continue_with(is_lower=True)  # the client has sent, so that its row is not refused
            service.model = found.description
            if sent.number == CHANGES:
                return accepted(service.model, sent)
            return StaleConfigError(service.model.config_id)

        with recording_service(found.description, answer) as service:
            client = Client(service.address, timeout_seconds=HANG_SECONDS)
            with client, contextlib.suppress(SealserveError):
                client.predict(row)
            if len(service.sent) <= CHANGES:
                found.continue_with(is_lower=False)
            trace += service.trace
    is_right = found.low <= value <= found.high
    return -np.log2(found.high - found.low) if is_right else 0.0, trace


@pytest.mark.usefixtures("refusing")
def test_a_client_that_refuses_tells_a_feature_to_many_bits() -> None:
    bits, _ = bits_read(0.1379)
    assert bits >= 17


def test_a_client_tells_nothing_about_a_feature() -> None:
    traces = [bits_read(value) for value in (0.1379, 0.9, np.nan)]
    assert [bits for bits, _ in traces] == [0.0] * 3
    assert traces[0][1] == traces[1][1] == traces[2][1]


def binary_features_read(features: NDArray[np.float64]) -> tuple[list[int], list[str]]:
    """Read a binary feature of many rows in one stream; return what was read, and what was sent.

    All rows are made for the first description. The service calls it stale, and describes a range
    that refuses ones. A row that comes again has a zero.
    """
    rows = np.full((len(features), FEATURES), 0.5)
    rows[:, 0] = features
    first = with_range(MODEL, 0.0, 1.0, "first")
    zeros_only = with_range(MODEL, 0.0, 0.5, "zeros")
    found: list[int] = []

    def answer(sent: Sent) -> Answer:
        if sent.header.config_id == "first":
            found.append(1)
            service.model = zeros_only
            return StaleConfigError(zeros_only.config_id)
        found[-1] = 0
        return accepted(zeros_only, sent)

    with recording_service(first, answer) as service, Client(service.address, timeout_seconds=HANG_SECONDS) as client:
        results = dict(client.stream(rows))
    assert len(results) == len(rows)
    return found, [sent.header.config_id for sent in service.sent]


@pytest.mark.usefixtures("refusing")
def test_a_client_that_refuses_tells_a_feature_of_every_row_of_a_stream() -> None:
    features = np.random.default_rng(7).integers(0, 2, 120).astype(np.float64)
    assert binary_features_read(features)[0] == features.tolist()


def test_a_client_tells_no_feature_of_a_stream() -> None:
    features = np.random.default_rng(7).integers(0, 2, 120).astype(np.float64)
    for rows in (features, 1.0 - features):
        found, sent = binary_features_read(rows)
        assert set(found) == {0}
        assert sent == ["first"] + ["zeros"] * 120, "each row, whatever its feature"


def category_read(category: int) -> tuple[int, list[Event]]:
    """Read which of three features is set, in one call; return what the service saw too.

    The service describes a group of which exactly one feature is set, and a smaller one when the
    client has sent its row for it. It is the number of rows that the client sends.
    """
    groups = [
        dataclasses.replace(
            MODEL,
            grid=InputGrid.of(FEATURES, 0.0, 1.0, 1.0, True, RowConstraints.of(FEATURES, group, [True])),
            config_id=f"group of {sum(group)}",
        )
        for group in ((1, 1, 1), (1, 1, 0), (1, 0, 0))
    ]

    def answer(sent: Sent) -> Answer:
        if sent.number + 1 == FEATURES:
            return accepted(groups[-1], sent)
        service.model = groups[sent.number + 1]
        return StaleConfigError(service.model.config_id)

    with recording_service(groups[0], answer) as service:
        client = Client(service.address, timeout_seconds=HANG_SECONDS)
        with client, contextlib.suppress(SealserveError):
            client.predict(np.eye(FEATURES)[[category]])
    return FEATURES - len(service.sent), service.trace


@pytest.mark.usefixtures("refusing")
def test_a_client_that_refuses_tells_which_feature_of_a_group_is_set() -> None:
    assert [category_read(category)[0] for category in range(FEATURES)] == [0, 1, 2]


def test_a_client_does_not_tell_which_feature_of_a_group_is_set() -> None:
    found = [category_read(category) for category in range(FEATURES)]
    assert [category for category, _ in found] == [0, 0, 0]
    assert found[0][1] == found[1][1] == found[2][1]
