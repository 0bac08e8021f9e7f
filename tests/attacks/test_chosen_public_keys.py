"""All weights of a private model from one row, under a public key of the client's choice.

What masks c1 of a reply is a u + e1, divided by the special prime and rounded. With a = X it rounds
to zero. Then a request of c0 = 0 and c1 = 1 (or, for feature j of a batch, X^j) gets the weights
themselves, or the weights times a factor, if c1 has one: then no rounding of the reply spoils them.
That is what a service did that took keys with a in full. A service that takes seeded keys refuses
such a key, and with an a that a seed expands to, c1 stays masked whatever b is.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.public_key_format import check_public_key
from sealserve.he.seal_format import CiphertextFormat
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader, PackedPair
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.wire import header_to_proto, scores_from_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor, ZeroEncryptorOf
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers, affine
from tests.support.chosen_keys import UncheckedZeroEncryptor, encryptors_of, monomial, seeded_key, unseeded_key
from tests.support.item_round_trip import RoundTrip
from tests.support.plans import plan_column, plan_row
from tests.support.raw import RawClient, Request
from tests.support.reply_pairs import Pair, factor, lifted, read_weights
from tests.support.serving import HANG_SECONDS, linear, registered_keys, running_server, served

SHAPE = 10, 784
HIDING_BITS = 40
CHUNK = 28  # ciphertexts


def chosen_unseeded(parameter_set: ParameterSet) -> bytes:
    """The key a = b = X: neither is zero at a root, nor a constant."""
    x = monomial(parameter_set)
    return unseeded_key(parameter_set, x, x)


def chosen_seeded(parameter_set: ParameterSet) -> bytes:
    """The key b = X, with an a that nobody can choose."""
    return seeded_key(parameter_set, monomial(parameter_set))


# Whether a service is as it was, and took the key, and what the attack then finds.
KEYS: dict[str, tuple[ZeroEncryptorOf, bool]] = {
    "unseeded, as before": (encryptors_of(UncheckedZeroEncryptor, chosen_unseeded), True),
    "seeded": (encryptors_of(ZeroEncryptor, chosen_seeded), False),
}
every_key = pytest.mark.parametrize("key", KEYS)


def weights_in(plan: RowPlan | ColumnPlan, index: int, pair: Pair) -> Integers:
    """What c1 of a pair of a reply to one row holds (N,), divided by the request's factor."""
    c1 = lifted(plan.parameters, plan.reply_bits, pair, len(plan.packing.classes_in(index))).c1
    return read_weights(plan, np.frombuffer(c1, np.uint64))


def monomials(plan: RowPlan | ColumnPlan, count: int) -> Iterator[NDArray[np.uint64]]:
    """Yield (0, factor X^j), residues (2, data primes, N), for j below a count."""
    primes = plan.parameters.parameter_set.data_primes
    for exponent in range(count):
        pair = np.zeros((2, len(primes), plan.packing.poly_modulus_degree), np.uint64)
        pair[1, :, exponent] = [factor(plan) % prime for prime in primes]
        yield pair


def assert_found(found: Integers, weights: NDArray[np.int64], *, succeeds: bool) -> None:
    """Check that the attack has found all weights, or nothing that looks like one."""
    assert found.shape == weights.shape
    if succeeds:
        np.testing.assert_array_equal(found, weights)
    else:
        # As good as a guess of 13 bits more than a weight has.
        assert not (found == weights).any()
        assert np.median(np.abs(found)) > 1000 * np.abs(weights).max()


@every_key
def test_all_weights_from_one_row(key: str) -> None:
    keys, succeeds = KEYS[key]
    plan = plan_row(*affine("normal", SHAPE).planned, hiding_bits=HIDING_BITS)
    round_trip = RoundTrip(plan, keys)
    form = round_trip.engine.format
    ((c0, c1),) = monomials(plan, 1)
    reply = round_trip.reply([form.pack(c0, c1.tobytes())], 1)
    used = plan.packing.classes * plan.packing.window
    found = np.array([weights_in(plan, index, pair)[:used] for index, pair in enumerate(reply)])
    packed = plan.packing.pack_weights(plan.model.weights)[:, 0, :used]
    assert np.count_nonzero(plan.model.weights) > 0.8 * SHAPE[0] * SHAPE[1]
    assert_found(found, packed, succeeds=succeeds)


@every_key
def test_all_weights_from_a_batch_of_one_row(key: str) -> None:
    keys, succeeds = KEYS[key]
    plan = plan_column(*affine("normal", SHAPE).planned, hiding_bits=HIDING_BITS)
    round_trip = RoundTrip(plan, keys)
    form = round_trip.engine.format
    scoring, chunk = round_trip.begin(1, SHAPE[1]), list[bytes]()
    for c0, c1 in monomials(plan, SHAPE[1]):
        chunk.append(form.pack(c0, c1.tobytes()))
        if len(chunk) == CHUNK:
            scoring.add(chunk)
            chunk.clear()
    found = np.array([weights_in(plan, index, pair)[: SHAPE[1]] for index, pair in enumerate(scoring.finish())])
    assert_found(found, plan.model.weights, succeeds=succeeds)


@pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda parameter_set: parameter_set.name
)
def test_the_chosen_key_is_refused_and_would_pass_the_checks_of_its_values(parameter_set: ParameterSet) -> None:
    """The old check saw a polynomial that is zero or constant modulo a prime, and X is neither."""
    x = monomial(parameter_set)
    primes = np.array(parameter_set.primes, np.uint64)[:, None]
    assert (x > 0).all()
    assert (x < primes).all()
    assert all(len(set(values.tolist())) == len(values) for values in x)
    with pytest.raises(MalformedKeyError) as caught:
        check_public_key(parameter_set, chosen_unseeded(parameter_set))
    assert caught.value.reason is KeyFault.UNSEEDED
    check_public_key(parameter_set, chosen_seeded(parameter_set))


def rows_weights(reply: prediction_pb2.PredictResponse, plan: RowPlan) -> Integers:
    """The coefficients of c1 of all pairs, as far as they hold weights, ordered by pair."""
    used = plan.packing.classes * SHAPE[1]
    pairs = [PackedPair(*piece) for piece in scores_from_proto(reply.scores) if isinstance(piece, PackedPair)]
    return np.array([weights_in(plan, index, pair)[:used] for index, pair in enumerate(pairs)])


@pytest.mark.parametrize("as_before", [True, False], ids=["as before", "as it is"])
def test_over_a_socket(as_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same against a service, whose key service is asked first."""
    generator, keys = np.random.default_rng(3), registered_keys()
    model = linear(generator.normal(size=SHAPE), generator.normal(size=SHAPE[0]))
    if as_before:
        monkeypatch.setattr(keys, "zero_encryptor", KEYS["unseeded, as before"][0])
    service = served("model", model, keys=keys, hiding_bits=HIDING_BITS)
    ranges = input_ranges(model, input_range=(0.0, 1.0))  # as `served` has them
    plan = plan_row(model.weights, model.intercept, ranges, hiding_bits=HIDING_BITS)
    packed = plan.packing.pack_weights(plan.model.weights)[:, 0, : plan.packing.classes * SHAPE[1]]
    with (
        running_server(ModelRegistry([service]), keys=keys) as address,
        RawClient(address, layout=LAYOUTS["row"]) as raw,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        parameter_set = raw.codec.offer.parameters.parameter_set
        assert (raw.codec.offer.parameters, raw.codec.offer.reply_bits) == (plan.parameters, plan.reply_bits)

        def register(data: bytes) -> str:
            return registry.register(data, kind=KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set=parameter_set.name).key_id

        if as_before:
            key_id = "0" * 64
        else:
            with pytest.raises(MalformedKeyError) as caught:
                register(chosen_unseeded(parameter_set))
            assert caught.value.reason is KeyFault.UNSEEDED
            assert list(registry.list()) == []
            key_id = register(chosen_seeded(parameter_set))
        reply = raw.predictions.Predict(request(raw, plan, key_id), timeout=HANG_SECONDS)
        found = rows_weights(reply, plan)
    assert_found(found, packed, succeeds=as_before)


def request(raw: RawClient, plan: RowPlan, key_id: str) -> Request:
    """One row of c0 = 0 and c1 = factor."""
    offer, model = raw.codec.offer, raw.codec.model
    form = CiphertextFormat(offer.parameters.parameter_set, offer.parms_id)
    ((c0, c1),) = monomials(plan, 1)
    header = ItemHeader(
        model=model.name,
        config_id=model.config_id,
        layout=offer.layout,
        parameter_set=offer.parameters.parameter_set.name,
        row_count=1,
        ciphertext_count=1,
        key_id=key_id,
    )
    return Request(header=header_to_proto(header), ciphertexts=[form.pack(c0, c1.tobytes())])
