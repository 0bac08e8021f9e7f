"""Attack: a service whose descriptions and lists cost a client time or memory.

A description of 60,000 offers took a second and 71 MB; a list of models had no end. Each is refused
before work is spent on it. Random descriptions, too, cost no more than a few times their own bytes.
"""

import asyncio
import itertools
import random
import time
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from sealserve import errors
from sealserve._codec.listing import MAX_ENTRIES, Listing
from sealserve._codec.offers import packing_of
from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.key_registry import KeyRegistry
from sealserve.loadtest.items import LoadItems
from sealserve.protocol import wire
from sealserve.protocol.wire import _models
from sealserve.v1 import keys_pb2, model_pb2
from tests.support.hostile_service import description, running_hostile

SECONDS = 20.0
SPARE_BYTES = 4 << 20  # an offer's objects, caches of NumPy and protobuf


def with_client(address: str) -> Any:
    with Client(address, timeout_seconds=SECONDS) as client:
        return client.predict(np.full((1, 2), 0.5))


def with_async_client(address: str) -> Any:
    async def predict() -> Any:
        async with AsyncClient(address, timeout_seconds=SECONDS) as client:
            return await client.predict(np.full((1, 2), 0.5))

    return asyncio.run(predict())


BOTH = pytest.mark.parametrize("predict", [with_client, with_async_client], ids=["sync", "async"])
Predict = Callable[[str], Any]


def of_offers(count: int) -> model_pb2.Model:
    message = description()
    message.offers.extend([message.offers[0]] * (count - len(message.offers)))
    return message


def of_scores(count: int) -> model_pb2.Model:
    """Scores whose reply would have count times 32 KB: it is not packed."""
    message = description()
    offer = message.offers[1]  # in columns
    offer.ClearField("reply_bits")
    message.output.score_count = count
    offer.score_centers[:], offer.score_radii[:] = [0] * count, [1] * count
    del message.offers[:]
    message.offers.append(offer)
    return message


# Descriptions


@BOTH
def test_60_000_offers_are_counted_and_not_converted(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    description_of_many = of_offers(60_000)
    converted = _converted(monkeypatch)
    with (
        running_hostile(description_of_many) as (service, address),
        pytest.raises(errors.ParameterError, match="60000 offers"),
    ):
        predict(address)
    assert service.calls == ["GetModel"]
    assert len(converted) == 0


@BOTH
def test_they_were_all_converted_when_nobody_counted(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    description_of_many = of_offers(6000)
    converted = _converted(monkeypatch)
    monkeypatch.setattr(_models, "check_counts", lambda message: None)
    with running_hostile(description_of_many) as (_, address), pytest.raises(errors.SealserveError):
        predict(address)
    assert len(converted) == 6000


def _converted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    converted, convert = list[None](), _models._offer_from_proto

    def count(*arguments: Any) -> Any:
        converted.append(None)
        return convert(*arguments)

    monkeypatch.setattr(_models, "_offer_from_proto", count)
    return converted


@BOTH
def test_a_reply_that_would_fill_the_memory_is_not_asked_for(predict: Predict) -> None:
    with (
        running_hostile(of_scores(65_536)) as (service, address),
        pytest.raises(errors.ParameterError, match=r"a reply for 65536 scores could have .* bytes or more"),
    ):
        predict(address)
    assert service.headers == []
    accepted = wire.model_from_proto(of_scores(1000))
    assert packing_of(accepted, accepted.offers[0]).polynomials == 1000


def test_predictions_that_would_fill_the_memory_are_not_asked_for() -> None:
    message = of_scores(30_000)
    with running_hostile(message) as (service, address), Client(address, timeout_seconds=SECONDS) as client:
        rows = np.broadcast_to(np.full((1, 2), 0.5), (100_000, 2))
        with pytest.raises(errors.ParameterError, match="too many to return at once"):
            client.predict(rows)
    assert service.headers == []


def test_a_load_test_of_endless_rows_is_not_begun() -> None:
    """32,768 rows of a million features have 256 GB."""
    client = SimpleNamespace(model=SimpleNamespace(grid=SimpleNamespace(feature_count=wire.MAX_FEATURES)))
    with pytest.raises(errors.InputError, match="too large: use fewer"):
        LoadItems(cast("Client", client), 32_768)


def random_description(seed: int) -> model_pb2.Model:
    """A description with a few fields of random size and content."""
    rng, message = random.Random(seed), description()
    counts = [0, 1, 2, 3, 100, 5000, 2**20, 2**20 + 1, 2**32 - 1]
    floats = [0.0, -1.0, 1.0, 5e-324, 1e308, float("nan"), float("inf")]
    suffix = "x" * rng.choice([0, 9000])
    integers = [0, 1, -1, 2**31, 2**62, -(2**63), 2**63 - 1]

    def many(values: list[Any]) -> list[Any]:
        return [rng.choice(values)] * rng.choice([0, 1, 2, 3, 100, 5000])

    def offer(change: Callable[[model_pb2.Offer], Any]) -> Callable[[], Any]:
        return lambda: list(map(change, message.offers))

    changes: list[Callable[[], Any]] = [
        lambda: setattr(message.input, "feature_count", rng.choice(counts)),
        lambda: setattr(message.output, "score_count", rng.choice(counts)),
        lambda: message.input.feature_names.extend(f"{n}{suffix}" for n in range(rng.choice([2, 500]))),
        lambda: message.input.minimum.extend(many(floats)),
        lambda: message.input.maximum.extend(many(floats)),
        lambda: message.input.step.extend(many(floats)),
        lambda: message.offers.extend([message.offers[0]] * rng.choice([1, 30, 3000])),
        lambda: message.output.classes.integers.values.extend(many(integers)),
        lambda: message.output.classes.strings.values.extend(many(["a", "x" * 5000])),
        offer(lambda o: o.score_centers.extend(many(integers))),
        offer(lambda o: o.score_radii.extend(many(integers))),
        offer(lambda o: setattr(o, "score_scale", rng.choice(floats))),
        offer(lambda o: setattr(o, "classes_per_polynomial", rng.choice(counts))),
        offer(lambda o: setattr(o, "rows_per_item", rng.choice(counts))),
        offer(lambda o: o.parameters.coeff_modulus.extend(many([12289, 2**64 - 4095]))),
        offer(lambda o: setattr(o.cost, "server_seconds", rng.choice(floats))),
        lambda: setattr(message.limits, "max_open_items", rng.choice(counts)),
        lambda: setattr(message.limits.item_timeout, "seconds", rng.choice(integers)),
        lambda: setattr(message, "name", rng.choice(["", "\x1b", "x" * 1_000_000])),
    ]
    for change in rng.sample(changes, rng.randint(1, 4)):
        change()
    return message


def cost(act: Callable[[], Any]) -> tuple[int, float]:
    """The peak of memory in bytes, and the seconds of this thread, that a function takes."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        act()
    except errors.SealserveError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, time.thread_time() - began


def converted(message: model_pb2.Model) -> None:
    """What a client does with a description before it makes a key: read it, check its offers."""
    model = wire.model_from_proto(message)
    for offer in model.offers:
        if offer.layout.packing is not None:
            packing_of(model, offer)


@pytest.mark.slow
def test_random_descriptions_cost_little() -> None:
    """The grid of a million features, which few bytes can ask for, has 24 MB and its levels 8."""
    outcomes = {True: 0, False: 0}
    for seed in range(60):
        message = random_description(seed)
        features = min(message.input.feature_count, wire.MAX_FEATURES)
        peak, _ = cost(lambda message=message: converted(message))  # type: ignore[misc]
        assert peak < SPARE_BYTES + 40 * message.ByteSize() + 100 * features, seed
        outcomes[_is_accepted(message)] += 1
    assert min(outcomes.values()) > 5, "some are legal, and some are not"


def test_a_million_groups_cost_little() -> None:
    """The group of a feature takes four bytes of the description at most, and its flag one."""
    message, count = description(), wire.MAX_FEATURES
    message.input.feature_count = count
    for values, value in ((message.input.minimum, 0.0), (message.input.maximum, 1.0), (message.input.step, 1.0)):
        values[:] = [value]
    message.input.keeps[:] = [True]
    message.input.group.extend(range(1, count + 1))
    message.input.exactly_one.extend([True] * count)
    assert wire.model_from_proto(message).grid.has_groups
    peak, _ = cost(lambda: converted(message))
    assert peak < SPARE_BYTES + 40 * message.ByteSize() + 100 * count


@pytest.mark.slow
def test_random_descriptions_take_little_time() -> None:
    for seed in range(60, 1000):
        message = random_description(seed)
        peak, seconds = cost(lambda message=message: converted(message))  # type: ignore[misc]
        assert peak < 200 << 20, seed
        assert seconds < 2.0, seed


def _is_accepted(message: model_pb2.Model) -> bool:
    try:
        wire.model_from_proto(message)
    except errors.ParameterError:
        return False
    return True


# Lists


def endless_models(pages: dict[str, Callable[[int], list[str]]], what: str) -> Any:
    numbers = itertools.count()

    def list_models(request: Any, context: grpc.ServicerContext) -> model_pb2.ListModelsResponse:
        number = next(numbers)
        if number >= LAST_PAGE:
            return model_pb2.ListModelsResponse()
        models = [description(name=name) for name in pages[what](number)]
        return model_pb2.ListModelsResponse(models=models, next_page_token=str(number))

    return list_models


LAST_PAGE = 300
PAGES: dict[str, Callable[[int], list[str]]] = {
    "empty pages": lambda number: [],
    "the same page": lambda number: ["line"],
    "pages in no order": lambda number: [f"line-{9 - number % 10}"],
    "a name twice": lambda number: [f"line-{number:05}"] * 2,
}


def list_with_client(address: str) -> list[Any]:
    with Client(address, timeout_seconds=SECONDS) as client:
        return list(client.models())


def list_with_async_client(address: str) -> list[Any]:
    async def listed() -> list[Any]:
        async with AsyncClient(address, timeout_seconds=SECONDS) as client:
            return [model async for model in client.models()]

    return asyncio.run(listed())


@pytest.mark.parametrize("models", [list_with_client, list_with_async_client], ids=["sync", "async"])
@pytest.mark.parametrize("what", PAGES)
def test_a_list_that_does_not_go_on_is_refused(what: str, models: Callable[[str], Any]) -> None:
    with (
        running_hostile(ListModels=endless_models(PAGES, what)) as (service, address),
        pytest.raises(errors.ParameterError, match="make sure that you trust the service"),
    ):
        models(address)
    assert len(service.calls) <= 3


def test_a_client_followed_it_when_only_the_token_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(self: Listing, names: Any, next_page_token: str, **counts: int) -> None:
        self.page_token, self.is_complete = next_page_token, not next_page_token

    monkeypatch.setattr(Listing, "receive", receive)
    with running_hostile(ListModels=endless_models(PAGES, "empty pages")) as (service, address):
        assert list_with_client(address) == []
    assert len(service.calls) == LAST_PAGE + 1


def test_the_command_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with running_hostile(ListModels=endless_models(PAGES, "empty pages")) as (_, address):
        assert main(["models", "list", "--address", address]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_list_of_keys_has_an_end_too() -> None:
    def list_keys(request: Any, context: grpc.ServicerContext) -> keys_pb2.ListKeysResponse:
        return keys_pb2.ListKeysResponse(next_page_token="more")

    with (
        running_hostile(ListKeys=list_keys) as (service, address),
        KeyRegistry(address) as registry,
        pytest.raises(errors.ParameterError, match="has no end"),
    ):
        list(registry.list())
    assert len(service.calls) == 1


def test_a_list_in_order_is_bounded_by_its_entries_bytes_features_and_time() -> None:
    listing = Listing(10.0)
    for number in range(MAX_ENTRIES // 100):
        listing.receive([f"{number:04}-{k:02}" for k in range(100)], "more", byte_count=1)
    with pytest.raises(errors.ParameterError, match="has no end"):
        listing.receive(["x"], "more", byte_count=1)
    for counts in ({"byte_count": 1 << 27}, {"byte_count": 1, "value_count": 1 << 24}):
        with pytest.raises(errors.ParameterError, match="has no end"):
            Listing(10.0).receive(["x"], "more", **counts)
    listing.spend(7.0)
    listing.spend(7.0)
    assert listing.seconds_left == 0.0


def test_a_slow_list_ends_with_the_timeout() -> None:
    numbers = itertools.count()

    def list_models(request: Any, context: grpc.ServicerContext) -> model_pb2.ListModelsResponse:
        time.sleep(0.3)
        return model_pb2.ListModelsResponse(models=[description(name=f"{next(numbers):05}")], next_page_token="more")

    with (
        running_hostile(ListModels=list_models) as (service, address),
        Client(address, timeout_seconds=1.0) as client,
        pytest.raises(errors.DeadlineError),
    ):
        list(client.models())
    assert len(service.calls) < 10
