"""A hostile service reads features and the secret key from where a client stops, but not any more.

The service publishes the widest range of scores that is not all of them: one residue of t is
refused. It answers an item with a ciphertext of its own making, which decrypts to that residue if a
guess is right. Features come from an earlier ciphertext of the client, moved to the place of the
score. Coefficients of the key come from a constant second polynomial. Each item is one guess. A
client that stops at the first refused reply says which guess was right.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve._codec.batches import Result
from sealserve._codec.codec import Decrypted
from sealserve.client import Client
from sealserve.errors import OutOfRangeError, ReplyError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import InputGrid
from sealserve.he.secret.decryptor import Decryptor
from sealserve.protocol.item import EncryptedScores
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.catalog.registry import prepare_model
from tests.support.recording_service import (
    Sent,
    accepted,
    bits_asked_for,
    described,
    recording_service,
    refused,
    scaled,
)
from tests.support.reply_pairs import pair_of
from tests.support.serving import HANG_SECONDS, LIMITS, linear

FEATURES = 1100  # more than half of a polynomial, so that each item has one row
LEVELS = 4
STOP_SECONDS = 0.25  # how long the service waits for a client to stop
GENERATOR = np.random.default_rng(151)
MODEL = described(
    prepare_model(
        "line",
        linear(GENERATOR.normal(size=(1, FEATURES))),
        InputGrid.of(FEATURES, 0.0, 1.0, 1 / (LEVELS - 1)),  # of values between, too
        LIMITS,
        accept_disagreement=True,
    ).model,
    layout="row",
)
(OFFER,) = MODEL.offers
N = OFFER.parameters.parameter_set.poly_modulus_degree
(Q,) = OFFER.parameters.parameter_set.data_primes
T = OFFER.parameters.plain_modulus
PLACE = FEATURES - 1  # of the score
RESIDUES = 113  # where a ciphertext's residues begin

Guess = Callable[[Sent], list[EncryptedScores]]


def times_power(polynomial: NDArray[np.object_], power: int) -> NDArray[np.object_]:
    """Multiply a polynomial modulo X^N + 1 and Q by a power of X."""
    rolled = np.roll(polynomial, power)
    rolled[:power] = -rolled[:power]
    reduced: NDArray[np.object_] = rolled % Q
    return reduced


def piece(sent: Sent, c0: int, c1: NDArray[np.object_]) -> list[EncryptedScores]:
    residues = np.array([[c0 % Q]], np.uint64), c1.astype(np.uint64)[None]
    return [pair_of(OFFER.parameters.parameter_set, bits_asked_for(OFFER, sent), *residues)]


def feature_is(first: Sent, feature: int, level: int) -> list[EncryptedScores]:
    """Decrypts to t/2, which is refused, if a feature of the first row is at a level."""
    both = np.frombuffer(first.ciphertexts[0], np.uint64, 2 * N, RESIDUES).astype(object)
    (moved_by,) = scaled(OFFER, T // 2 - level)
    return piece(first, both[feature] + moved_by, times_power(both[N:], PLACE - feature))


def key_is(sent: Sent, places: tuple[int, ...], coefficients: tuple[int, ...]) -> list[EncryptedScores]:
    """Decrypts to t/2, which is refused, if three coefficients of the key have these values."""
    unit = Q // 32  # 27 sums of three coefficients, each a thirty-second of t apart
    weights = [3**index for index in range(len(places))]
    c1 = np.zeros(N, object)
    for place, weight in zip(places, weights, strict=True):
        monomial = np.zeros(N, object)
        monomial[0] = weight * unit
        c1 = (c1 + times_power(monomial, PLACE - place)) % Q
    guess = sum(weight * coefficient for weight, coefficient in zip(weights, coefficients, strict=True))
    return piece(sent, Q // 2 - guess * unit, c1)


class Reader:
    """Answers the items of a call with guesses, and notices after which one the client stops."""

    def __init__(self, guesses: list[Guess]) -> None:
        self._guesses = guesses
        self.right: int | None = None

    def __call__(self, sent: Sent) -> list[EncryptedScores]:
        """Answer an item."""
        if sent.number >= 2 and self.right is None and sent.has_ended.wait(STOP_SECONDS):
            self.right = sent.number - 2
        number = sent.number - 1  # the first item is the row that is read
        return self._guesses[number](sent) if 0 <= number < len(self._guesses) else accepted(MODEL, sent)


def read(client_of: Callable[[str], Client], rows: NDArray[np.float64], guesses: list[Any]) -> int | None:
    """Return which guess is right, as far as the service can tell after one call of `predict`."""
    firsts: list[Sent] = []

    def bound(guess: Any) -> Guess:
        return lambda sent: guess(firsts[0])

    reader = Reader([bound(guess) for guess in guesses])

    def answer(sent: Sent) -> list[EncryptedScores]:
        firsts.append(sent)
        return reader(sent)

    with recording_service(MODEL, answer) as service:
        with client_of(service.address) as client, pytest.raises(ReplyError):
            client.predict(rows)
        sent = len(service.sent)
    if reader.right is None and sent < len(rows):
        return sent - 2  # the client stopped before it sent another item
    return reader.right


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients stop as they did: at the first reply that fails a check."""
    whole = Client._score_batches

    def stop(self: Client, *arguments: Any) -> Iterator[Result]:
        with closing(whole(self, *arguments)) as results:
            for result in results:
                if isinstance(result.outcome, Decrypted) and not result.outcome.is_plausible:
                    raise ReplyError
                yield result

    monkeypatch.setattr(Client, "_score_batches", stop)


def anyone(address: str) -> Client:
    return Client(address, timeout_seconds=HANG_SECONDS)


def features_read(count: int) -> tuple[list[int | None], list[int]]:
    """Read features, each in a call; return them as read, and as they are."""
    levels = GENERATOR.integers(0, LEVELS, (LEVELS + 2, FEATURES))
    read_levels = []
    for feature in range(count):
        guesses = [
            lambda first, feature=feature, level=level: feature_is(first, feature, level) for level in range(LEVELS)
        ]
        read_levels.append(read(anyone, levels / (LEVELS - 1), guesses))
    return read_levels, levels[0, :count].tolist()


def coefficients_of(key: SecretKey, count: int) -> list[int]:
    """Coefficients of the key, as its owner computes them."""
    decryptor = Decryptor(OFFER.parameters, key.export(TOKEN))
    c1 = np.zeros(N, np.uint64)
    c1[0] = Q // 4
    quarters = decryptor.decrypt(bytes(8 * count), c1.tobytes(), np.arange(count, dtype=np.intp))
    return [{0: 0, 1: 1, 3: -1}[round(4 * int(value) / T) % 4] for value in quarters]


def key_read(calls: int) -> tuple[list[int | None], list[int]]:
    """Read three coefficients of the key in each call; return them as read, and as they are."""
    key = SecretKey.generate(LAYOUTS["row"].open_parameter_sets[0])
    candidates = list(product((-1, 0, 1), repeat=3))
    found: list[int | None] = []
    for call in range(calls):
        places = (3 * call, 3 * call + 1, 3 * call + 2)
        guesses = [lambda sent, places=places, values=values: key_is(sent, places, values) for values in candidates]
        right = read(
            lambda address: Client(address, secret_key=key, timeout_seconds=HANG_SECONDS),
            np.full((len(guesses) + 2, FEATURES), 0.5),
            guesses,
        )
        found += [None] * 3 if right is None else candidates[right]
    return found, coefficients_of(key, 3 * calls)


@pytest.mark.usefixtures("stopping")
def test_a_client_that_stops_tells_its_features() -> None:
    found, actual = features_read(2)
    assert found == actual


@pytest.mark.usefixtures("stopping")
@pytest.mark.slow
def test_a_client_that_stops_tells_its_key() -> None:
    found, actual = key_read(1)
    assert found == actual


@pytest.mark.slow
@pytest.mark.usefixtures("stopping")
def test_eight_features_in_eight_calls_and_fifteen_coefficients_in_five() -> None:
    for found, actual in (features_read(8), key_read(5)):
        assert found == actual


def test_a_client_tells_no_feature() -> None:
    found, actual = features_read(2)
    assert found == [None] * len(actual)


def test_one_reply_fails_its_own_rows_only() -> None:
    """And a dummy's scores fail nothing."""

    def answer(sent: Sent) -> list[EncryptedScores]:
        return refused(MODEL, sent) if sent.number in (1, 2) else accepted(MODEL, sent)

    rows = np.full((5, FEATURES), 0.5)
    rows[2, 7] = 2.0
    with recording_service(MODEL, answer) as service, anyone(service.address) as client:
        results = client.predict(rows, errors="return")
        service.sent.clear()
        with pytest.raises(OutOfRangeError, match=r"^row 2, feature 7 is outside"):
            client.predict(rows)
    assert [type(results[index]) for index in (1, 2)] == [ReplyError, OutOfRangeError]
    assert [float(results[index][0]) for index in (0, 3, 4)] == [0.0] * 3


def test_a_client_does_not_tell_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.attacks.test_refused_replies.STOP_SECONDS", 0.05)  # none of 27 is a stop
    found, actual = key_read(1)
    assert len(actual) == 3
    assert found == [None] * 3
