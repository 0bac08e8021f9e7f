"""A service of tomorrow and a client of today, and the other way round.

A client refuses a model that requires what the client cannot do, and sends nothing. A service
refuses an item whose client reads no form in which the service can reply.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import InputMismatchError, RequirementError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.loadtest.items import LoadItems
from sealserve.protocol import model as protocol_model
from sealserve.protocol import wire
from sealserve.protocol.model import CiphertextForm
from sealserve.protocol.wire import config_digest
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry, ServedModel, describe_model
from sealserve_service.engines.linear.base import LinearEngine
from sealserve_service.engines.offering import LINEAR_ENGINES
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.command_line import fails
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.plans import cheapest_plan
from tests.support.raw import RawClient, as_message, assert_error, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, linear, registered_keys, running_server, served

ROWS = np.array([[0.5, 0.25, 0.125]])
WEIGHTS = np.array([[1.0, -2.0, 0.5]])


def requiring(model: ServedModel, *names: str) -> ServedModel:
    """The model as a service of tomorrow describes it."""
    changed = dataclasses.replace(model.model, requires=names)
    return ServedModel(dataclasses.replace(changed, config_id=config_digest(changed)), model.engines)


def on_another_ring(name: str) -> ServedModel:
    """The model on a ring of 30 bits, which no layout of this version names."""
    model, grid = linear(WEIGHTS), InputGrid.of(3, 0.0, 1.0, 0.125)
    engines = list[LinearEngine[Any]]()
    for engine_type in LINEAR_ENGINES:
        other = ParameterSet(f"{engine_type.rules.layout.name}-2048-30", 2048, (0x3FFF4001,))
        plan = cheapest_plan(
            engine_type.rules, model.weights, model.intercept, grid, max_score_error=0.3, parameter_sets=[other]
        )
        engines.append(engine_type(plan))
    return describe_model(name, model, grid, SETTINGS.limits, engines)


@dataclass(frozen=True)
class Service:
    """A server with a model of tomorrow and one of today, and what it has received."""

    address: str
    registry: ModelRegistry
    telemetry: Telemetry

    @property
    def asked(self) -> set[str]:
        """The methods of which a request has been read."""
        metrics = {metric.name: metric.samples for metric in self.telemetry.registry.collect()}
        samples = metrics["sealserve_received_bytes"]
        return {sample.labels["method"].rpartition("/")[2] for sample in samples if sample.value > 0}


@pytest.fixture
def service() -> Iterator[Service]:
    keys, telemetry = registered_keys(), Telemetry()
    today = served("today", linear(WEIGHTS), keys=keys)
    tomorrow = requiring(served("tomorrow", linear(WEIGHTS), keys=keys), "later-steps", "packed-replies")
    registry = ModelRegistry([today, tomorrow])
    with running_server(registry, keys=keys, telemetry=telemetry) as address:
        yield Service(address, registry, telemetry)


def client_of(service: Service, model: str = "tomorrow") -> Client:
    return Client(service.address, model=model, timeout_seconds=HANG_SECONDS)


# By name: what a program may do first with a model. None may send anything but questions.
USES: dict[str, Callable[[Client], object]] = {
    "predict": lambda client: client.predict(ROWS),
    "decision_function": lambda client: client.decision_function(ROWS),
    "rows of another width": lambda client: client.predict(np.ones((1, 7))),
    "no rows": lambda client: client.predict(np.empty((0, 3))),
    "stream": lambda client: list(client.stream(ROWS)),
    "register_key": lambda client: client.register_key(),
    "encrypt": lambda client: client.encrypt(ROWS),
    "encrypt_quantized": lambda client: client.encrypt_quantized(np.zeros((1, 3), np.int64)),
    "model": lambda client: client.model,
    "offer": lambda client: client.offer(),
    "load": lambda client: LoadItems(client, 1),
}


@pytest.mark.parametrize("name", USES)
def test_a_client_refuses_what_it_does_not_know_and_sends_nothing(service: Service, name: str) -> None:
    with client_of(service) as client:
        for _ in range(2):
            with pytest.raises(RequirementError, match=r"'tomorrow' requires 'later-steps', 'packed-replies'"):
                USES[name](client)
    assert service.asked == {"GetModel"}


def test_a_client_uses_the_other_models(service: Service) -> None:
    with client_of(service, "today") as client:
        assert client.predict(ROWS)[0] == pytest.approx(WEIGHTS @ ROWS[0], abs=0.05)


def test_an_asyncio_client_refuses_too(service: Service) -> None:
    async def use() -> None:
        async with AsyncClient(service.address, model="tomorrow", timeout_seconds=HANG_SECONDS) as client:
            with pytest.raises(RequirementError):
                await client.predict(ROWS)
            with pytest.raises(RequirementError):
                async for _ in client.stream(ROWS):
                    pass
            with pytest.raises(RequirementError):
                await client.register_key()

    asyncio.run(use())
    assert service.asked == {"GetModel"}


def test_an_encrypted_inference_client_refuses_too(service: Service, ei_user: EIUser) -> None:
    with EIClient(service.address, model="tomorrow", client=ei_user.client, timeout_seconds=HANG_SECONDS) as client:
        for call in (lambda: client.predict(ROWS), lambda: client.score([""])):
            with pytest.raises(RequirementError):
                call()
    assert service.asked == {"GetModel"}


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "--input", "rows.npy", "--output", "labels.npy"],
        ["bench", "--seconds", "0.2", "--warm-up", "0"],
        ["bench", "--seconds", "0.2", "--warm-up", "0", "--replay"],
    ],
    ids=lambda command: " ".join(command[:2]) + command[-1],
)
def test_commands_refuse_too(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", ROWS)
    said = fails(capsys, *command, "--address", service.address, "--model", "tomorrow")
    assert "requires 'later-steps'" in said
    assert "update sealserve" in said
    assert service.asked == {"GetModel"}


def test_a_listing_has_all_models_and_says_which_are_for_later_versions(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", "--address", service.address]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["tomorrow"].endswith("for a later version: update sealserve")
    assert "row-2048-44" in lines["today"]
    with client_of(service) as client:
        assert {model.name: model.requires for model in client.models()} == {
            "today": (),
            "tomorrow": ("later-steps", "packed-replies"),
        }
    assert "requires 'later-steps'" in fails(capsys, "models", "show", "tomorrow", "--address", service.address)


def test_a_model_that_begins_to_require_more_is_refused_from_then_on(service: Service) -> None:
    """Also for the rows of a stream, each of which has the error."""
    with client_of(service, "today") as client:
        client.predict(ROWS)
        service.registry.put(requiring(served("today", linear(2 * WEIGHTS)), "later-steps"))
        with pytest.raises(RequirementError):
            client.predict(ROWS)
        results = dict(client.stream(np.repeat(ROWS, 20, axis=0)))
        assert [type(results[row]) for row in range(20)] == [RequirementError] * 20


def test_a_capability_that_the_client_has_is_no_hindrance(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_model, "CAPABILITIES", frozenset({"later-steps"}))
    with client_of(service) as client, pytest.raises(RequirementError, match="requires 'packed-replies'"):
        client.predict(ROWS)
    monkeypatch.setattr(protocol_model, "CAPABILITIES", frozenset({"later-steps", "packed-replies"}))
    with client_of(service) as client:
        assert client.predict(ROWS)[0] == pytest.approx(WEIGHTS @ ROWS[0], abs=0.05)


def test_a_hostile_list_of_requirements_makes_no_long_error() -> None:
    model = requiring(served("model", linear(WEIGHTS)), *(["\x1b[31m" + "x" * 10_000] * 10_000)).model
    with pytest.raises(RequirementError) as caught:
        model.check_requirements()
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)


# Forms of ciphertexts


@pytest.mark.parametrize(
    "forms",
    [[], [99], [0, -1, 2**31 - 1], [99] * 16 + [1], [99] * 100_000],
    ids=lambda forms: f"{len(forms)} {forms[:3]}",
)
def test_a_client_passes_over_forms_that_it_does_not_know(forms: list[Any]) -> None:
    """Of what it knows, it takes what is among the first 16."""
    message = wire.model_to_proto(served("model", linear(WEIGHTS)).model)
    numbers: Any = message.offers[0].ciphertext_forms
    for first, known in ((1, {CiphertextForm.PACKED}), (77, set[CiphertextForm]())):
        numbers[:] = [first, *forms]
        assert wire.model_from_proto(message).offers[0].ciphertext_forms == known


# Forms of replies


@pytest.mark.parametrize("forms", [[], [3], [2, 1, 3], [99, 3], [-1, 2**31 - 1, 3]], ids=str)
def test_a_form_that_the_service_sends_among_others(raw: RawClient, digits_model: Digits, forms: list[Any]) -> None:
    request = raw.request(digits_model.X[0])
    request.header.reply_forms[:] = forms
    assert_scores(raw.predict(request), digits_model.scores[0])
    assert_scores(raw.stream([as_message(1, request)])[1], digits_model.scores[0])


@pytest.mark.parametrize("forms", [[2], [0], [99], [-1], [99] * 16 + [3], [2] * 100_000], ids=lambda f: str(f[:17]))
def test_no_form_that_the_service_sends(raw: RawClient, digits_model: Digits, forms: list[Any]) -> None:
    good = raw.request(digits_model.X[1])
    request = raw.request(digits_model.X[0])
    request.header.reply_forms[:] = forms
    expected = InputMismatchError("reply_forms", prediction_pb2.REPLY_FORM_PACKED, 0)
    with pytest.raises(InputMismatchError) as caught:
        raw.predict(request)
    assert_error(caught.value, expected)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.__cause__.code() is grpc.StatusCode.INVALID_ARGUMENT
    answers = raw.stream([as_message(1, request), as_message(2, good)])
    assert_error(answers[1], expected)
    assert_scores(answers[2], digits_model.scores[1])


def test_the_sdk_names_the_forms_that_it_reads(raw: RawClient, digits_model: Digits) -> None:
    assert list(raw.request(digits_model.X[0]).header.reply_forms) == [prediction_pb2.REPLY_FORM_PACKED]


def test_an_item_of_ei_slots_needs_its_own_form(service: Service, ei_user: EIUser) -> None:
    with RawClient(service.address, "today") as raw:
        offer, config_id = raw.codec.model.offers[-1], raw.codec.model.config_id
        header = prediction_pb2.ItemHeader(
            model="today",
            config_id=config_id,
            layout="LAYOUT_EI_SLOTS",
            parameter_set=offer.parameters.parameter_set.name,
            row_count=1,
            ciphertext_count=1,
            key_id="0" * 64,
            reply_forms=["REPLY_FORM_RESIDUES"],
        )
        with pytest.raises(InputMismatchError) as caught:
            raw.predict(prediction_pb2.PredictRequest(header=header))
        assert_error(caught.value, InputMismatchError("reply_forms", prediction_pb2.REPLY_FORM_SEAL_CIPHERTEXT, 0))
    with EIClient(
        service.address,
        model="today",
        client=ei_user.client,
        evaluation_keys=ei_user.evaluation_keys,
        timeout_seconds=HANG_SECONDS,
    ) as client:
        assert client.predict(ROWS)[0] == pytest.approx(WEIGHTS @ ROWS[0], abs=1e-3)


@pytest.mark.parametrize("seeded", [False, True])
def test_a_client_encrypts_for_a_ring_that_it_has_no_name_for(seeded: bool) -> None:
    """It takes degree and primes from the description, and checks them."""
    named = {s.name for layout in LAYOUTS.values() for s in layout.open_parameter_sets + layout.private_parameter_sets}
    rows = np.array([[0.5, 0.25, 0.125], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    with running_server(ModelRegistry([on_another_ring("model")])) as address:
        for layout in ("row", "column"):
            with Client(address, layout=layout, seeded=seeded, timeout_seconds=HANG_SECONDS) as client:
                offer = client.offer(len(rows))
                assert offer.parameters.parameter_set.name not in named
                assert offer.ciphertext_forms == {CiphertextForm.PACKED}
                assert np.abs(client.predict(rows) - rows @ WEIGHTS.T).max() <= offer.score_error_bound
