"""The asyncio client against a real server: the other client's results, and no blocked loop."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve.aio import AsyncClient
from sealserve.credentials import Credentials
from sealserve.errors import (
    InputError,
    ModelNotFoundError,
    NoSuchMethodError,
    OutOfRangeError,
    QuotaExceededError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.certificates import Authority
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    running_server,
    served,
    with_limits,
)


def ran(act: Callable[[AsyncClient], Awaitable[Any]], address: str, **settings: Any) -> Any:
    """Act with a client in a loop of its own; return the result."""

    async def main() -> Any:
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS, **settings) as client:
            return await act(client)

    return asyncio.run(main())


async def collected(results: AsyncIterator[tuple[int, Any]]) -> dict[int, Any]:
    """All results of a stream; no index comes twice."""
    pairs = [pair async for pair in results]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("layout", ["row", "column", "auto"])
@pytest.mark.parametrize("count", [1, 200])
def test_predictions_are_the_estimators(digits_server: str, digits_model: Digits, layout: str, count: int) -> None:
    rows, estimator = digits_model.X[:count], digits_model.estimator

    async def act(client: AsyncClient) -> Any:
        return await asyncio.gather(client.predict(rows), client.decision_function(rows), client.predict_proba(rows))

    labels, scores, probabilities = ran(act, digits_server, layout=layout)
    np.testing.assert_array_equal(labels, estimator.predict(rows))
    assert np.abs(scores - digits_model.scores[:count]).max() < 0.01
    assert np.abs(probabilities - estimator.predict_proba(rows)).max() < 0.02


def test_no_rows_and_refused_rows(digits_server: str) -> None:
    async def act(client: AsyncClient) -> None:
        assert (await client.predict(np.empty((0, 64)))).shape == (0,)
        assert await collected(client.stream([])) == {}
        with pytest.raises(OutOfRangeError):
            await client.predict(np.full((1, 64), 2.0))
        rows = np.zeros((3, 64))
        rows[1, 1] = 2.0
        for method in (client.predict, client.decision_function, client.predict_proba, client.scored):
            results = await method(rows, errors="return")
            assert [isinstance(result, OutOfRangeError) for result in results] == [False, True, False]
        item = await client.encrypt(rows)
        reply = await client.send(item)
        with pytest.raises(OutOfRangeError, match="row 1, feature 1"):
            await client.decrypt(reply)
        with pytest.raises(InputError):
            await anext(client.stream([], rows_per_item=0))

    ran(act, digits_server)


def test_models(digits_server: str) -> None:
    async def act(client: AsyncClient) -> None:
        assert [model.name async for model in client.models()] == ["digits"]
        assert (await client.model()).name == "digits"
        assert (await client.secret_key()).fits((await client.model()).offers[0].parameters.parameter_set)

    ran(act, digits_server)


def test_errors_are_typed(digits_server: str) -> None:
    async def predict(client: AsyncClient) -> None:
        await client.predict(np.zeros((1, 64)))

    with pytest.raises(ModelNotFoundError):
        ran(predict, digits_server, model="nobody")
    with pytest.raises(UnavailableError):
        ran(predict, "127.0.0.1:1")


def test_tls_and_a_token_on_every_call(digits_model: Digits, tmp_path: Path) -> None:
    authority = Authority("a")
    certificate, key = authority.issue("service").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    identities = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    token = identities.token("clinic")
    settings = SETTINGS.with_changes(tls_certificate=certificate, tls_private_key=key, identities=identities.path)

    async def act(client: AsyncClient) -> None:
        assert [model.name async for model in client.models()] == ["digits"]
        assert await client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])
        assert len(await collected(client.stream(digits_model.X[:9]))) == 9

    with running_server(digits_registry(digits_model.estimator), settings) as address:
        trusting = Credentials(ca_certificate=tmp_path / "ca.pem", token=token)
        ran(act, address, credentials=trusting)
        with pytest.raises(UnauthenticatedError):
            ran(act, address, credentials=dataclasses.replace(trusting, token=token[:-1] + "x"))


def test_a_model_without_probabilities() -> None:
    async def act(client: AsyncClient) -> None:
        with pytest.raises(NoSuchMethodError):
            await client.predict_proba([[0.5]])
        with pytest.raises(NoSuchMethodError):
            await anext(client.stream([[0.5]], method="predict_proba"))

    with running_server(ModelRegistry([served("line", linear([[1.0]]))])) as address:
        ran(act, address)


# Streams


@pytest.mark.parametrize("rows_per_item", [None, 3, 1000])
@pytest.mark.parametrize("connections", [1, 3])
def test_a_stream_gives_every_index_once(
    digits_server: str, digits_model: Digits, rows_per_item: int | None, connections: int
) -> None:
    rows = [*digits_model.X[:99], digits_model.X[0] + 2]
    results = ran(
        lambda client: collected(client.stream(rows, rows_per_item=rows_per_item)),
        digits_server,
        connections=connections,
    )
    assert isinstance(results.pop(99), OutOfRangeError)
    assert [results[index] for index in range(99)] == digits_model.estimator.predict(digits_model.X[:99]).tolist()


def test_an_asynchronous_source_may_wait_for_results(digits_server: str, digits_model: Digits) -> None:
    async def act(client: AsyncClient) -> list[int]:
        arrived = asyncio.Event()

        async def live() -> AsyncIterator[Any]:
            for row in digits_model.X[:5]:
                yield row
                await asyncio.wait_for(arrived.wait(), HANG_SECONDS)
                arrived.clear()

        indices = []
        async for index, _ in client.stream(live()):
            indices.append(index)
            arrived.set()
        return indices

    assert ran(act, digits_server) == list(range(5))


def test_what_the_source_raises_comes_after_the_results_before_it(digits_server: str, digits_model: Digits) -> None:
    async def act(client: AsyncClient) -> list[int]:
        async def source() -> AsyncIterator[Any]:
            for row in digits_model.X[:20]:
                yield row
            raise LookupError("the source is broken")

        indices: list[int] = []

        async def note_all() -> None:
            async for index, _ in client.stream(source()):
                indices.append(index)

        with pytest.raises(LookupError, match="the source is broken"):
            await note_all()
        return indices

    assert sorted(ran(act, digits_server)) == list(range(20))


def test_the_loop_is_not_blocked_by_encryption(digits_model: Digits) -> None:
    """While a batch of 4000 features is encrypted, which takes a second, the loop still turns."""
    model = linear(np.ones((1, 2000)))

    async def act(client: AsyncClient) -> tuple[float, float]:
        rows, gaps, last = np.zeros((3, 2000)), [0.0], time.monotonic()
        predicted = asyncio.ensure_future(client.predict(rows))
        started = last
        while not predicted.done():
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        np.testing.assert_allclose(await predicted, 0.0, atol=0.1)
        return max(gaps), last - started

    with running_server(ModelRegistry([served("wide", model)])) as address:
        longest_gap, seconds = ran(act, address, layout="column")
    assert longest_gap < seconds / 2


def test_closing_a_stream_early_ends_its_call(digits_model: Digits) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield digits_model.X[0]

    # The server takes one call at a time: the next is refused for as long as the stream is open.
    settings = SETTINGS.with_changes(max_concurrent_calls=1)

    async def act(client: AsyncClient) -> None:
        async with (
            aclosing(client.stream(endless())) as results,
            AsyncClient(client_address, timeout_seconds=0.9) as impatient,
        ):
            assert await anext(results)
            with pytest.raises(QuotaExceededError, match="concurrent_calls"):
                await impatient.predict(digits_model.X[:1])
        assert not [task for task in asyncio.all_tasks() if "AsyncScoreStream" in repr(task.get_coro())]
        assert len(await client.predict(digits_model.X[:1])) == 1

    with running_server(digits_registry(digits_model.estimator, settings), settings) as client_address:
        ran(act, client_address)


def test_more_rows_than_the_window_and_the_open_items(digits_model: Digits) -> None:
    settings = with_limits(window_bytes=150_000, max_open_items=3)
    with running_server(digits_registry(digits_model.estimator, settings), settings) as address:
        results = ran(lambda client: collected(client.stream(digits_model.X[:60])), address)
    assert [results[index] for index in range(60)] == digits_model.estimator.predict(digits_model.X[:60]).tolist()


@pytest.mark.slow
def test_it_obeys_the_delay_of_a_quota(digits_model: Digits) -> None:
    settings = SETTINGS.with_changes(rows_per_minute=600)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        results = ran(lambda client: collected(client.stream(np.repeat(digits_model.X[:1], 603, axis=0))), address)
    assert len(results) == 603
    assert set(results.values()) == set(digits_model.estimator.predict(digits_model.X[:1]))


def test_it_follows_a_change_of_the_model() -> None:
    X = np.random.default_rng(4).random((50, 2))
    old = LogisticRegression().fit(X, np.where(X[:, 0] > 0.5, "old yes", "old no"))
    new = LogisticRegression().fit(X, np.where(X[:, 0] < 0.5, "new yes", "new no"))
    models = [served("model", model, input_step=1 / 128) for model in (old, new)]
    registry, row = ModelRegistry(models[:1]), [0.75, 0.5]

    async def act(client: AsyncClient) -> None:
        assert await client.predict([row]) == old.predict([row])
        registry.put(models[1])
        assert set((await collected(client.stream([row] * 3))).values()) == set(new.predict([row]))
        registry.put(models[0])
        assert await client.predict([row]) == old.predict([row])

    with running_server(registry) as address:
        ran(act, address)


def test_a_client_belongs_to_one_event_loop(digits_server: str, digits_model: Digits) -> None:
    client, row = AsyncClient(digits_server, timeout_seconds=HANG_SECONDS), digits_model.X[:1]

    async def stream() -> None:
        await collected(client.stream(row))

    async def send() -> None:
        await client.send(item)

    async def encrypt() -> Any:
        return await client.encrypt(row, keep=True)

    with asyncio.Runner() as first:
        item = first.run(encrypt())
        assert first.run(client.predict(row)) == digits_model.estimator.predict(row)
        for act in (lambda: client.predict(row), client.model, send, stream):
            with asyncio.Runner() as second, pytest.raises(UsageError, match="make another"):
                run_in_thread(lambda second=second, act=act: second.run(act()))  # type: ignore[misc]
        assert first.run(client.predict(row)) == digits_model.estimator.predict(row)
    asyncio.run(client.close())


def run_in_thread(act: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(HANG_SECONDS)
