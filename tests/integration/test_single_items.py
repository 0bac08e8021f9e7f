"""Beyond `predict`: one call for everything, a time limit of its own, an offer, single items."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve._rpc.transfer_time import REMOTE_SECONDS_A_BYTE
from sealserve.aio import AsyncClient
from sealserve.client import Client, EncryptedItem
from sealserve.errors import (
    InputError,
    KeyNotFoundError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
    ReplyError,
    StaleConfigError,
    TransportError,
)
from sealserve.protocol.item import PackedPair
from sealserve.protocol.output import Scored
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.digits import Digits
from tests.support.fault_proxy import FaultProxy, relay, say_nothing
from tests.support.serving import HANG_SECONDS, linear, registered_keys, running_server, served, with_limits

RANDOM = np.random.default_rng(17)


@pytest.fixture(scope="module")
def private_server(digits_model: Digits) -> Iterator[str]:
    """The address of a server of the digits model with private weights."""
    keys = registered_keys()
    model = served("digits", digits_model.estimator, input_step=1 / 16, keys=keys, hiding_bits=40)
    with running_server(ModelRegistry([model]), keys=keys) as address:
        yield address


def assert_scored(scored: Scored, model: Digits, count: int) -> None:
    rows = model.X[:count]
    np.testing.assert_array_equal(scored.predictions, model.estimator.predict(rows))
    assert np.abs(scored.scores - model.scores[:count]).max() < 0.05
    assert scored.probabilities is not None
    assert np.abs(scored.probabilities - model.estimator.predict_proba(rows)).max() < 0.05


# One call for everything


@pytest.mark.parametrize("count", [1, 200])
def test_one_call_gives_predictions_scores_and_probabilities(client: Client, digits_model: Digits, count: int) -> None:
    assert_scored(client.scored(digits_model.X[:count]), digits_model, count)


def test_a_regression_has_no_probabilities_and_no_rows_are_none() -> None:
    with (
        running_server(ModelRegistry([served("line", linear([[1.0, 2.0]]))])) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        scored = client.scored([[0.5, 0.25]])
        assert scored.probabilities is None
        assert scored.predictions == pytest.approx(scored.scores)
        assert client.scored(np.empty((0, 2))).scores.shape == (0, 1)


# A time limit of its own


@pytest.fixture
def proxy(digits_server: str) -> Iterator[FaultProxy]:
    """A proxy before the digits service."""
    with FaultProxy(int(digits_server.rpartition(":")[2])) as proxy:
        yield proxy


def test_a_call_has_its_own_time(proxy: FaultProxy, digits_model: Digits) -> None:
    row = digits_model.X[:1]
    with Client(f"127.0.0.1:{proxy.port}", timeout_seconds=HANG_SECONDS) as client:
        item = client.encrypt(row)
        proxy.use(say_nothing)
        started = time.monotonic()
        for act in (client.predict, client.decision_function, client.predict_proba, client.scored):
            with pytest.raises(TransportError):
                act(row, timeout_seconds=0.2)
        with pytest.raises(TransportError):
            client.send(item, timeout_seconds=0.2)
        with pytest.raises(TransportError):
            list(client.stream(digits_model.X[:9], timeout_seconds=0.2))
        assert time.monotonic() - started < HANG_SECONDS / 2
        proxy.use(relay)
        assert client.predict(row) == digits_model.estimator.predict(row)


def test_a_call_may_take_longer_than_the_clients_time(proxy: FaultProxy, digits_model: Digits) -> None:
    row = digits_model.X[:1]
    with Client(f"127.0.0.1:{proxy.port}", timeout_seconds=0.2) as client:
        client.predict(row, timeout_seconds=HANG_SECONDS)
        proxy.use(say_nothing)
        with pytest.raises(TransportError):
            client.predict(row)
        proxy.use(relay)
        assert client.predict(row, timeout_seconds=HANG_SECONDS) == digits_model.estimator.predict(row)
        results = dict(client.stream(digits_model.X[:9], timeout_seconds=HANG_SECONDS))
        labels = [results[index] for index in range(9)]
        np.testing.assert_array_equal(labels, digits_model.estimator.predict(digits_model.X[:9]))


# A chosen offer


@pytest.mark.parametrize("name", ["row-2048-44", "column-2048-44"])
def test_an_offer_can_be_chosen_by_its_parameter_set(digits_server: str, digits_model: Digits, name: str) -> None:
    with Client(digits_server, parameter_set=name, timeout_seconds=HANG_SECONDS) as client:
        for count in (1, 10_000):
            assert client.offer(count).parameters.parameter_set.name == name
        assert_scored(client.scored(digits_model.X[:3]), digits_model, 3)


@pytest.mark.parametrize(
    ("layout", "name", "offered"),
    [
        ("auto", "row-4096-60", "row-2048-44, column-2048-44"),
        ("row", "column-2048-44", "row-2048-44"),
        ("column", "ei-8192", "column-2048-44"),
    ],
)
def test_an_offer_that_is_not_there(digits_server: str, layout: str, name: str, offered: str) -> None:
    with Client(digits_server, layout=layout, parameter_set=name, timeout_seconds=HANG_SECONDS) as client:
        with pytest.raises(ParameterError, match=f"with parameter set '{name}': these are offered: {offered}$"):
            client.offer()
        with pytest.raises(ParameterError):
            client.predict(np.zeros((1, 64)))


# Single items


@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize("keep", [False, True])
def test_an_item_can_be_sent_any_number_of_times(
    private_server: str, digits_model: Digits, layout: str, keep: bool
) -> None:
    with Client(private_server, layout=layout, timeout_seconds=HANG_SECONDS) as client:
        client.register_key()
        item = client.encrypt(digits_model.X[:3], keep=keep)
        for connection in (0, 0, 1):
            reply = client.send(item, connection=connection)
            assert reply.header == item.header
            assert reply.header.row_count == 3
            assert reply.request_bytes > item.byte_count
            assert reply.reply_bytes > 0
            assert 0 < reply.server_seconds < HANG_SECONDS
            assert_scored(client.decrypt(reply), digits_model, 3)


def ciphertexts_of(item: EncryptedItem) -> list[bytes]:
    return list(item.ciphertexts)


def test_rows_are_encrypted_anew_each_time_unless_they_are_kept(client: Client, digits_model: Digits) -> None:
    fresh, kept = (client.encrypt(digits_model.X[:1], keep=keep) for keep in (False, True))
    assert ciphertexts_of(fresh) != ciphertexts_of(fresh)
    assert fresh.requests == ()
    (request,) = kept.requests
    assert len(request) > kept.byte_count


def test_rows_on_the_grid(client: Client, digits_model: Digits) -> None:
    quantized = np.rint(digits_model.X[:2] * 16).astype(np.int64)
    assert_scored(client.decrypt(client.send(client.encrypt_quantized(quantized))), digits_model, 2)


BAD_QUANTIZED: dict[str, Any] = {
    "floats": np.zeros((1, 64)),
    "too narrow": np.zeros((1, 63), np.int64),
    "none": np.zeros((0, 64), np.int64),
}


@pytest.mark.parametrize("what", BAD_QUANTIZED)
def test_quantized_rows_that_are_none(client: Client, what: str) -> None:
    with pytest.raises(InputError):
        client.encrypt_quantized(BAD_QUANTIZED[what])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8])
@pytest.mark.parametrize("value", [-1, 17, 127])
def test_rows_that_are_not_on_the_grid_are_dummies(client: Client, dtype: type[np.integer[Any]], value: int) -> None:
    rows = np.tile(client.model.grid.levels.astype(dtype), (3, 1))  # a pixel without weight has one level
    assert rows[1, 5] == 16
    rows[1, 5] = np.array(value).astype(dtype)
    item = client.encrypt_quantized(rows)
    assert item.refused is not None
    assert item.refused.places.tolist() == [False, True, False]
    reply = client.send(item)
    with pytest.raises(InputError, match=r"^row 1, feature 5 is not within 0\.\.16: quantized rows must be within"):
        client.decrypt(reply)
    rows[1, 5] = 16
    assert client.decrypt(client.send(client.encrypt_quantized(rows))).scores.shape == (3, 10)


def test_rows_out_of_range_are_dummies(client: Client, digits_model: Digits) -> None:
    rows = digits_model.X[:3].copy()
    rows[1, 3], rows[2, 4] = 2.0, np.nan
    for keep in (False, True):
        reply = client.send(client.encrypt(rows, keep=keep))
        with pytest.raises(NotFiniteError, match=r"row 1, feature 3 is outside .*; row 2, feature 4 is missing"):
            client.decrypt(reply)


def is_refused(result: Any) -> bool:
    return isinstance(result, InputError)


def test_errors_of_an_items_rows_are_returned(client: Client, digits_model: Digits) -> None:
    rows = digits_model.X[:3].copy()
    rows[0, 3], rows[2, 4] = 2.0, np.nan
    reply = client.send(client.encrypt(rows))
    out_of_range, sound, missing = client.decrypt(reply, errors="return")
    assert_scored(sound, Digits(digits_model.estimator, digits_model.X[1:], digits_model.scores[1:]), 1)
    assert sound.scores.shape == (1, 10)
    assert isinstance(out_of_range, OutOfRangeError)
    assert str(out_of_range).startswith("feature 3 is outside")
    assert isinstance(missing, NotFiniteError)
    assert str(missing) == "feature 4 is missing (NaN): replace it"
    quantized = np.zeros((2, 64), np.int64)
    quantized[1, 3] = 99
    results = client.decrypt(client.send(client.encrypt_quantized(quantized)), errors="return")
    assert list(map(is_refused, results)) == [False, True]
    assert len(client.decrypt(client.send(client.encrypt(rows[:1])), errors="return")) == 1


def with_other_top_bits(packed: bytes, bits: int) -> bytes:
    """Flip the most significant bit of each packed value."""
    whole = int.from_bytes(packed, "little")
    for end in range(bits, 8 * len(packed) + 1, bits):
        whole ^= 1 << end - 1
    return whole.to_bytes(len(packed), "little")


def test_errors_of_a_spoiled_reply_are_returned(
    client: Client, digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row has its own: that it was refused, or else that nothing of the reply is kept."""
    monkeypatch.setattr(client._connections.transfer_time, "seconds_a_byte", REMOTE_SECONDS_A_BYTE)  # packed replies
    rows = digits_model.X[:3].copy()
    rows[1, 3] = 2.0
    reply = client.send(client.encrypt(rows))
    pairs = [piece for piece in reply.scores if isinstance(piece, PackedPair)]
    assert len(pairs) == len(reply.scores)
    bits = client.offer().reply_bits
    assert bits is not None
    # Half a turn: a score of each of these rows is then further than its radius.
    turned = [PackedPair(with_other_top_bits(pair.c0, bits.c0), pair.c1) for pair in pairs]
    for scores in ([], [*reply.scores, *reply.scores], turned):
        spoiled = dataclasses.replace(reply, scores=scores)
        found = client.decrypt(spoiled, errors="return")
        assert list(map(type, found)) == [ReplyError, OutOfRangeError, ReplyError]
    header = dataclasses.replace(reply.header, config_id="another")
    with pytest.raises(StaleConfigError):
        client.decrypt(dataclasses.replace(reply, header=header), errors="return")
    with pytest.raises(InputError, match="is not 'raise' or 'return'"):
        client.decrypt(reply, errors="ignore")  # type: ignore[call-overload]


def test_an_item_and_its_refused_rows_show_no_feature(client: Client, digits_model: Digits) -> None:
    item = client.encrypt(np.full((2, 64), 0.123456))
    assert item.refused is not None
    assert "123456" not in repr(item) + repr(item.refused) + repr(client.send(item))


def test_rows_that_no_item_holds(digits_server: str, digits_model: Digits) -> None:
    with Client(digits_server, layout="row", timeout_seconds=HANG_SECONDS) as client:
        capacity = client.offer().rows_per_item
        client.encrypt(digits_model.X[:capacity])
        for count in (0, capacity + 1):
            with pytest.raises(InputError, match=f"an item holds 1 to {capacity} rows, not {count}"):
                client.encrypt(digits_model.X[:count])


def test_an_item_that_is_longer_than_a_message() -> None:
    model, settings = linear(RANDOM.normal(size=(2, 9000))), with_limits(max_message_bytes=100_000)
    registry = ModelRegistry([served("wide", model, limits=settings.limits)])
    row = RANDOM.random((1, 9000))
    with running_server(registry, settings) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        for keep in (False, True):
            item = client.encrypt(row, keep=keep)
            assert not item.fits_a_message
            assert np.abs(client.decrypt(client.send(item)).scores - model.decision(row)).max() < 0.5


def test_nothing_is_registered_unless_it_is_asked_for(private_server: str, digits_model: Digits) -> None:
    with Client(private_server, timeout_seconds=HANG_SECONDS) as client:
        item = client.encrypt(digits_model.X[:1])
        with pytest.raises(KeyNotFoundError):
            client.send(item)
        client.register_key()
        client.register_key()
        assert_scored(client.decrypt(client.send(item)), digits_model, 1)


def test_a_reply_that_is_spoiled_or_of_another_model(client: Client, digits_model: Digits) -> None:
    reply = client.send(client.encrypt(digits_model.X[:1]))
    for scores in ([], [*reply.scores, *reply.scores]):
        with pytest.raises(ReplyError):
            client.decrypt(dataclasses.replace(reply, scores=scores))
    header = dataclasses.replace(reply.header, config_id="another")
    with pytest.raises(StaleConfigError):
        client.decrypt(dataclasses.replace(reply, header=header))


def test_a_model_that_changes_between_items() -> None:
    X = RANDOM.random((50, 2))
    old, new = (served("model", LogisticRegression().fit(X, X[:, column] > 0.5)) for column in (0, 1))
    registry = ModelRegistry([old])
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        row = np.array([[0.9, 0.1]])
        item = client.encrypt(row)
        reply = client.send(item)
        scores = client.decrypt(reply).scores
        registry.put(new)
        with pytest.raises(StaleConfigError):
            client.send(item)
        client.predict(row)  # gets the model again
        np.testing.assert_array_equal(client.decrypt(reply).scores, scores, "as it was encrypted")
        assert np.abs(client.decrypt(client.send(client.encrypt(row))).scores - scores).min() > 0.5


# Asyncio


def test_the_same_with_asyncio(private_server: str, digits_model: Digits) -> None:
    async def act() -> None:
        async with AsyncClient(private_server, parameter_set=None, timeout_seconds=HANG_SECONDS) as client:
            item = await client.encrypt(digits_model.X[:1], keep=True)
            with pytest.raises(KeyNotFoundError):
                await client.send(item)
            await client.register_key()
            assert_scored(await client.decrypt(await client.send(item)), digits_model, 1)
            quantized = np.rint(digits_model.X[:1] * 16).astype(np.int64)
            item = await client.encrypt_quantized(quantized)
            assert_scored(await client.decrypt(await client.send(item, connection=1)), digits_model, 1)
            assert_scored(await client.scored(digits_model.X[:5]), digits_model, 5)
            reply = await client.send(await client.encrypt([*digits_model.X[:1], [2.0] * 64]))
            sound, refused = await client.decrypt(reply, errors="return")
            assert_scored(sound, digits_model, 1)
            assert isinstance(refused, OutOfRangeError)
        name = (await _offer(private_server, "column")).parameters.parameter_set.name
        async with AsyncClient(private_server, parameter_set=name, timeout_seconds=HANG_SECONDS) as client:
            assert (await client.offer()).layout.name == "column"
            await client.register_key()
            item = await client.encrypt(digits_model.X[:2])
            assert_scored(await client.decrypt(await client.send(item)), digits_model, 2)

    asyncio.run(act())


def test_a_call_has_its_own_time_with_asyncio(proxy: FaultProxy, digits_model: Digits) -> None:
    async def act() -> None:
        async with AsyncClient(f"127.0.0.1:{proxy.port}", timeout_seconds=HANG_SECONDS) as client:
            item = await client.encrypt(digits_model.X[:1])
            proxy.use(say_nothing)
            started = time.monotonic()
            for acts in (client.predict, client.decision_function, client.predict_proba, client.scored):
                with pytest.raises(TransportError):
                    await acts(digits_model.X[:1], timeout_seconds=0.2)
            with pytest.raises(TransportError):
                await client.send(item, timeout_seconds=0.2)
            with pytest.raises(TransportError):
                _ = [result async for result in client.stream(digits_model.X[:9], timeout_seconds=0.2)]
            assert time.monotonic() - started < HANG_SECONDS / 2

    asyncio.run(act())


async def _offer(address: str, layout: str) -> Any:
    async with AsyncClient(address, layout=layout, timeout_seconds=HANG_SECONDS) as client:
        return await client.offer()
