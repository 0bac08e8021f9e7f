"""Weights from two replies that are hidden by one encryption of zero: their difference has none.

The attacker has a proper key and keeps every reply. It asks twice, with c0 = 0 and with c1 of its
choice, once with twice the c1 of the other time. What is left of the difference of both c1' is the
weights. Zeros are made before they are needed, and each attack is one way in which one might be
used twice: it is used and kept, it is put back after a fault, a fork has a copy, or it has served
for another pair of the same reply. Each attack succeeds against a service with that fault, which is
a switch here, and fails against the product.
"""

import multiprocessing
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import ParameterSet
from sealserve.he.secret.public_key import generate_public_key
from sealserve.protocol.item import ReplyForm
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers, affine
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.plans import plan_column, row_plans
from tests.support.reply_pairs import Pair, factor, lifted, read_weights
from tests.support.serving import HANG_SECONDS

FORK = multiprocessing.get_context("fork")
READY = 6


class Keeps(ZeroEncryptor):
    """Looks at the first ready zero, and leaves it there."""

    def encrypt(self) -> NDArray[np.uint64]:
        return self.ready[0].value


class PutsBack(ZeroEncryptor):
    """Puts the zeros of an item that has failed back."""

    def put_back(self) -> None:
        self.ready.extendleft(reversed(self.used))

    def encrypt(self) -> NDArray[np.uint64]:
        zero = self.ready.popleft()
        self.used = [*getattr(self, "used", []), zero]
        return zero.value


class TrustsForks(ZeroEncryptor):
    """Uses the zeros of another process as its own."""

    def encrypt(self) -> NDArray[np.uint64]:
        return self.ready.popleft().value


class Attacker:
    """A client of a plan with the two requests of the attack, and ready zeros under its key."""

    def __init__(self, plan: RowPlan | ColumnPlan, encryptor: type[ZeroEncryptor]) -> None:
        parameter_set = plan.parameters.parameter_set
        self.plan = plan
        self.zeros = encryptor(parameter_set, generate_public_key(parameter_set, secret_key(parameter_set)))
        for _ in range(READY):
            self.zeros.make_ready()
        self.round_trip = RoundTrip(plan, self._find_key)

    def _find_key(self, tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
        return self.zeros

    def request(self, times: int) -> list[bytes]:
        """Ciphertexts with c0 = 0, and c1 = times factor X^j in ciphertext j."""
        form, primes = self.round_trip.engine.format, self.plan.parameters.parameter_set.data_primes
        ciphertexts = []
        for index in range(self.plan.packing.ciphertexts):
            pair = np.zeros(form.shape, np.uint64)
            pair[1, :, index] = [times * factor(self.plan) % prime for prime in primes]
            ciphertexts.append(form.pack(pair[0], pair[1].tobytes()))
        return ciphertexts

    def reply(self, times: int) -> list[Pair]:
        """Ask, and get a whole reply."""
        return self.round_trip.reply(self.request(times), 1)

    def residues(self, pair: Pair, polynomial: int) -> NDArray[np.uint64]:
        """c1 of a pair, (data primes, N)."""
        count = len(self.plan.packing.classes_in(polynomial))
        c1 = lifted(self.plan.parameters, self.plan.reply_bits, pair, count).c1
        return np.frombuffer(c1, np.uint64).reshape(len(self.plan.parameters.parameter_set.data_primes), -1)

    def difference(self, once: Pair, twice: Pair, polynomial: int = 0, other: int | None = None) -> Integers:
        """The weights that are left of two pairs, (N,)."""
        primes = np.array(self.plan.parameters.parameter_set.data_primes, object)[:, None]
        first = self.residues(once, polynomial if other is None else other).astype(object)
        return read_weights(self.plan, (self.residues(twice, polynomial).astype(object) - first) % primes)

    def weights(self, polynomial: int = 0) -> NDArray[np.int64]:
        """What the attack is to find, (N,)."""
        packing, weights = self.plan.packing, self.plan.model.weights
        found = np.zeros(packing.poly_modulus_degree, np.int64)
        packed = (
            packing.pack_weights(weights)[polynomial, 0] if isinstance(packing, RowPacking) else weights[polynomial]
        )
        found[: len(packed)] = packed
        return found


def assert_read(found: Integers, weights: NDArray[np.int64], *, succeeds: bool) -> None:
    """Check that an attack has found all weights, or no more of them than guesses find."""
    assert np.count_nonzero(weights) > 3
    if succeeds:
        np.testing.assert_array_equal(found, weights)
    else:
        assert (found == weights).mean() < 0.001


@pytest.fixture(scope="module")
def row() -> RowPlan:
    """Of two polynomials."""
    sets = LAYOUTS["row"].private_parameter_sets[:1]
    plan = row_plans(*affine("normal", (6, 1000)).planned, hiding_bits=40, parameter_sets=sets)[0]
    assert plan.packing.polynomials == 2
    return plan


@pytest.fixture(scope="module")
def column() -> ColumnPlan:
    return plan_column(*affine("normal", (2, 30)).planned, hiding_bits=40)


@pytest.fixture
def plan(layout: str, row: RowPlan, column: ColumnPlan) -> RowPlan | ColumnPlan:
    return row if layout == "row" else column


both = pytest.mark.parametrize("layout", ["row", "column"])


def switch(fault: type[ZeroEncryptor]) -> pytest.MarkDecorator:
    """The product, and the service that has a fault."""
    cases = [pytest.param(ZeroEncryptor, False, id="the product"), pytest.param(fault, True, id=fault.__name__)]
    return pytest.mark.parametrize(("encryptor", "succeeds"), cases)


@both
@switch(Keeps)
def test_two_replies(plan: RowPlan | ColumnPlan, encryptor: type[ZeroEncryptor], succeeds: bool) -> None:
    attacker = Attacker(plan, encryptor)
    once, twice = attacker.reply(1), attacker.reply(2)
    for polynomial in range(len(once)):
        found = attacker.difference(once[polynomial], twice[polynomial], polynomial)
        assert_read(found, attacker.weights(polynomial), succeeds=succeeds)


@both
@switch(Keeps)
def test_two_pairs_of_a_reply(plan: RowPlan | ColumnPlan, encryptor: type[ZeroEncryptor], succeeds: bool) -> None:
    """The difference of the weights of two polynomials."""
    attacker = Attacker(plan, encryptor)
    first, second = attacker.reply(1)
    found = attacker.difference(first, second, 1, other=0)
    assert_read(found, attacker.weights(1) - attacker.weights(0), succeeds=succeeds)


@both
@switch(PutsBack)
def test_a_reply_after_one_that_has_failed(
    plan: RowPlan | ColumnPlan, encryptor: type[ZeroEncryptor], succeeds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream sends the pairs of a reply one by one: the client has one, then comes a fault."""
    attacker = Attacker(plan, encryptor)
    engine = attacker.round_trip.engine
    writer, made = engine.writer, list[Pair]()

    def fail_after_one(c0: bytes, c1: bytes) -> Pair:
        if made:
            raise MemoryError
        made.append(writer.pair(c0, c1))
        return made[0]

    with monkeypatch.context() as faulty:
        faulty.setattr(engine, "writers", {ReplyForm.PACKED: writer._replace(pair=fail_after_one)})
        scoring = attacker.round_trip.begin(1, plan.packing.ciphertexts)
        scoring.add(attacker.request(1))
        pieces = scoring.finish()
        once = next(pieces)
        with pytest.raises(MemoryError):
            next(pieces)
    assert len(attacker.zeros.ready) == READY - 2, "the zero of the pair that failed is gone, too"
    if isinstance(attacker.zeros, PutsBack):
        attacker.zeros.put_back()
    found = attacker.difference(once, attacker.reply(2)[0])
    assert_read(found, attacker.weights(), succeeds=succeeds)


@both
@switch(TrustsForks)
def test_a_reply_of_a_forked_child(plan: RowPlan | ColumnPlan, encryptor: type[ZeroEncryptor], succeeds: bool) -> None:
    """The child has a copy of all ready zeros of its parent, and the same client asks both."""
    attacker = Attacker(plan, encryptor)
    once = in_child(lambda: attacker.reply(1))
    found = attacker.difference(once[0], attacker.reply(2)[0])
    assert_read(found, attacker.weights(), succeeds=succeeds)


def in_child(act: Callable[[], list[Pair]]) -> list[Pair]:
    """Return what a function returns in a forked child."""
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: theirs.send(act()), daemon=True)
    child.start()
    try:
        assert ours.poll(HANG_SECONDS)
        found: list[Pair] = ours.recv()
        return found
    finally:
        child.kill()
        child.join()
