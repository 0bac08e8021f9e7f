"""What SEAL throws is a failed item, never a score.

Without memory, SEAL's products fail as products do that would hide nothing. When such failures were
taken for a product of zero, clients got the bare intercepts in mode private, and nothing said so.
Here each call of SEAL's that an engine makes of an item fails with each exception that the binding
can raise, at its first and at its last time.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sealserve._rpc.status import typed_error
from sealserve.errors import MalformedCiphertextError, QuotaExceededError, ReplyError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.public_key import generate_public_key
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.ei.keys import load_galois_keys
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.engines.linear.row import RowScoring
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from tests.support.affine_models import affine, integer_scores, random_rows
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.plans import plan_column, plan_row
from tests.support.raw import RawClient
from tests.support.serving import HANG_SECONDS, digits_registry, running_server

FAILURES: tuple[BaseException, ...] = (
    MemoryError("std::bad_alloc"),
    RuntimeError("result ciphertext is transparent"),  # a std::logic_error, or one that pybind11 does not know
    ValueError("encrypted is not valid for encryption parameters"),
    IndexError("vector::_M_range_check"),
    OverflowError("unsigned overflow"),
)
"""What pybind11 makes of C++ exceptions."""

ROLES = ("Evaluator", "Encryptor", "Decryptor")
FUNCTIONS = ("load_ciphertext", "ciphertext_residues", "ciphertext_bytes", "load_plaintext", "encrypted_zero")
ENGINES = ("row", "private row", "column", "private column", "EI slots")


class Seal:
    """SEAL, of which one call may fail.

    Attributes:
        calls: how often each function or method has been called.
        failing: the name of what fails, at which of its calls, and with what.
    """

    def __init__(self) -> None:
        self.calls = Counter[str]()
        self.failing: tuple[str, int, BaseException] | None = None

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.calls[name] += 1
        if self.failing and self.failing[:2] == (name, self.calls[name]):
            raise self.failing[2]
        return function(*arguments)


class Watched:
    """One of SEAL's objects, each of whose methods is a step."""

    def __init__(self, seal: Seal, real: Any) -> None:
        self._seal, self._real = seal, real

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._seal.step(name, getattr(self._real, name), *arguments)


@pytest.fixture
def seal(monkeypatch: pytest.MonkeyPatch) -> Seal:
    """SEAL for all objects that are made from now on."""
    seal = Seal()

    def watched(role: Any) -> Callable[..., Watched]:
        return lambda *arguments: Watched(seal, role(*arguments))

    def stepping(name: str, function: Any) -> Callable[..., Any]:
        return lambda *arguments: seal.step(name, function, *arguments)

    for name in ROLES:
        monkeypatch.setattr(_seal, name, watched(getattr(_seal, name)))
    for name in FUNCTIONS:
        monkeypatch.setattr(_seal, name, stepping(name, getattr(_seal, name)))
    return seal


@dataclass(frozen=True)
class Item:
    """An item: what scores it, and what decrypts the reply; and the right scores."""

    reply: Callable[[], Any]
    opened: Callable[[Any], NDArray[Any]]
    scores: NDArray[Any]
    tolerance: float = 0.0

    def is_right(self) -> bool:
        return bool((np.abs(self.opened(self.reply()) - self.scores) <= self.tolerance).all())


def linear_item(layout: str, hiding_bits: int | None) -> Item:
    """An item of several ciphertexts and classes, whose first ciphertext is seeded."""
    model = affine("normal", (3, 5 if layout == "column" else 9000))
    plan = (plan_column if layout == "column" else plan_row)(*model.planned, hiding_bits=hiding_bits)
    parameters = plan.parameters
    key = secret_key(parameters.parameter_set)
    public_key = generate_public_key(parameters.parameter_set, key)

    def keys(owner: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
        return ZeroEncryptor(parameter_set, public_key)

    round_trip = RoundTrip(plan, keys)
    rows = random_rows(model.grid, 1)
    plaintexts = list(plan.packing.pack_rows(rows))
    ciphertexts = round_trip.encrypted(rows)
    ciphertexts[0] = SeededEncryptor(parameters, key).encrypt(plaintexts[0])
    return Item(
        lambda: round_trip.reply(ciphertexts, 1),
        lambda reply: round_trip.opened(reply, 1),
        integer_scores(plan.model, rows),
    )


def ei_item(user: EIUser) -> Item:
    random = np.random.default_rng(0)
    weights, intercept, x = random.normal(size=(3, 30)), random.normal(size=3), random.uniform(-1, 1, 30)
    galois = load_galois_keys(user.evaluation_keys)
    engine = EiSlotsEngine(weights, intercept, InputGrid.of(30, -1, 1), lambda *_: galois)
    header = ItemHeader(
        model="",
        config_id="",
        layout=LAYOUTS["ei-slots"],
        parameter_set="ei-8192",
        row_count=1,
        ciphertext_count=1,
        key_id="0" * 64,
    )
    ciphertexts = user.encrypt(x)

    def reply() -> Any:
        scoring = engine.begin(header, "")
        scoring.add(ciphertexts)
        return list(scoring.finish())

    return Item(reply, user.decrypt, weights @ x + intercept, engine.offer.score_error_bound)


@pytest.fixture
def item(name: str, seal: Seal, ei_user: EIUser) -> Item:
    if name == "EI slots":
        return ei_item(ei_user)
    return linear_item(name.split()[-1], 40 if "private" in name else None)


@pytest.mark.parametrize("name", ENGINES)
def test_a_failure_is_no_score(name: str, item: Item, seal: Seal) -> None:
    assert item.is_right()
    seal.calls.clear()
    reply = item.reply()
    calls = dict(seal.calls)
    assert len(calls) >= 2, calls
    assert np.allclose(item.opened(reply).astype(float), item.scores.astype(float), rtol=0, atol=item.tolerance)
    for step, count in calls.items():
        for number in {1, count}:
            for failure in FAILURES:
                seal.calls.clear()
                seal.failing = step, number, failure
                with pytest.raises(Exception) as caught:  # noqa: PT011  # any is a failed item
                    item.reply()
                if isinstance(failure, MemoryError):
                    assert caught.value is failure, "it says nothing of the client's bytes"
                elif step != "load_ciphertext":
                    assert not isinstance(caught.value, MalformedCiphertextError)
                seal.failing = None
        assert item.is_right(), f"the next item, after {step} failed"


def test_a_failure_was_the_bare_intercepts(monkeypatch: pytest.MonkeyPatch, seal: Seal) -> None:
    """The attack on the old behaviour, which took every failure for a product of zero."""
    item, product = linear_item("row", 40), RowScoring._product

    def product_or_zero(scoring: RowScoring, weights: Any) -> Any:
        try:
            return product(scoring, weights)
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError):
            return scoring._engine.zero

    monkeypatch.setattr(RowScoring, "_product", product_or_zero)
    seal.failing = "multiply_plain", seal.calls["multiply_plain"] + 1, MemoryError()
    assert not (item.opened(item.reply()) == item.scores).all()
    seal.failing = None
    assert item.is_right()


@pytest.mark.parametrize("name", ["private row", "private column", "EI slots"])
def test_failed_items_leave_no_memory_behind(name: str, item: Item, seal: Seal) -> None:
    def fail(times: int) -> None:
        for index in range(times):
            seal.calls.clear()
            seal.failing = steps[index % len(steps)], 1, MemoryError()
            with pytest.raises(MemoryError):
                item.reply()

    item.reply()
    seal.calls.clear()
    item.reply()
    steps = list(seal.calls)
    fail(2 * len(steps))
    before = psutil.Process().memory_info().rss
    fail(10 * len(steps))
    assert psutil.Process().memory_info().rss - before < 4 << 20, "an item holds 100 KB and more"


def test_a_client_without_memory_gets_no_scores(seal: Seal) -> None:
    plan = plan_row(*affine("normal", (3, 10)).planned)
    key = secret_key(plan.parameters.parameter_set)
    encryptors = Encryptor(plan.parameters, key), SeededEncryptor(plan.parameters, key)
    N = plan.parameters.parameter_set.poly_modulus_degree
    decryptor, places = Decryptor(plan.parameters, key), np.arange(N)
    primes = len(plan.parameters.parameter_set.data_primes)
    seal.failing = "decrypt", seal.calls["decrypt"] + 1, MemoryError()
    ones = np.ones(primes * N, np.uint64).tobytes()
    with pytest.raises(MemoryError):
        decryptor.decrypt(ones, ones, places)
    seal.failing = "decrypt", seal.calls["decrypt"] + 1, RuntimeError()
    with pytest.raises(ReplyError):
        decryptor.decrypt(ones, ones, places)
    for encryptor in encryptors:
        seal.failing = "encrypt_symmetric", seal.calls["encrypt_symmetric"] + 1, MemoryError()
        with pytest.raises(MemoryError):
            encryptor.encrypt(np.zeros(N, np.uint64))


def test_a_service_without_memory_asks_to_come_again(
    digits_model: Digits, seal: Seal, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets RESOURCE_EXHAUSTED and a delay, the operator a line in the log."""
    row = digits_model.X[0]
    with running_server(digits_registry(digits_model.estimator)) as address, RawClient(address) as raw:
        request = raw.request(row)
        seal.failing = "multiply_plain", seal.calls["multiply_plain"] + 1, MemoryError("std::bad_alloc")
        with pytest.raises(grpc.RpcError) as caught:
            raw.predictions.Predict(request, timeout=HANG_SECONDS)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        refusal = typed_error(error)
        assert isinstance(refusal, QuotaExceededError)
        assert (refusal.quota, refusal.retry_delay_seconds) == ("server_memory", 1.0)
        assert any("out of memory" in record.getMessage() for record in caplog.records)
        seal.failing = None
        assert raw.predict(request)[0] == pytest.approx(digits_model.estimator.decision_function([row])[0], abs=0.5)
