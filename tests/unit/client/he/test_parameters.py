"""Parameter sets: none below 128 bits of security can be built, and SEAL agrees on every number."""

import math
from itertools import islice, pairwise

import pytest
import seal
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.errors import ParameterError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import (
    MAX_MODULUS_BITS,
    MAX_PLAIN_MODULUS_BITS,
    MAX_PRIME_BITS,
    MAX_PRIMES,
    EncryptionParameters,
    ParameterSet,
    key_parameters,
)
from sealserve.secret_key import SecretKey

SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
(PRIME,) = SMALLEST.primes
TWO_PRIMES = LAYOUTS["row"].open_parameter_sets[-1]
EVERY_SET = (*LAYOUTS["row"].open_parameter_sets, *LAYOUTS["row"].private_parameter_sets[1:])
SETS = pytest.mark.parametrize(
    "parameter_set", [*EVERY_SET, *LAYOUTS["column"].open_parameter_sets], ids=lambda s: s.name
)
DEGREES = pytest.mark.parametrize("degree", MAX_MODULUS_BITS)


def primes_of(degree: int, bits: int) -> tuple[int, ...]:
    """Distinct primes, 1 modulo 2N, whose product has exactly so many bits; found by SEAL."""
    count = -(-bits // 55)
    sizes = [bits // count + (index < bits % count) for index in range(count)]
    primes = tuple(modulus.value() for modulus in seal.CoeffModulus.Create(degree, sizes))
    assert math.prod(primes).bit_length() == bits
    return primes


def is_accepted_by_seal(degree: int, primes: tuple[int, ...]) -> bool:
    parms = seal.EncryptionParameters(seal.scheme_type.bfv)
    parms.set_poly_modulus_degree(degree)
    parms.set_coeff_modulus([seal.Modulus(prime) for prime in primes])
    parms.set_plain_modulus(16)
    return bool(seal.SEALContext(parms).parameters_set())


# Security


@DEGREES
def test_the_table_is_seals(degree: int) -> None:
    assert MAX_MODULUS_BITS[degree] == seal.CoeffModulus.MaxBitCount(degree, seal.sec_level_type.tc128)


@DEGREES
def test_one_bit_above_the_table_is_refused(degree: int) -> None:
    most = MAX_MODULUS_BITS[degree]
    allowed, forbidden = primes_of(degree, most), primes_of(degree, most + 1)
    assert is_accepted_by_seal(degree, ParameterSet("secure", degree, allowed).primes)
    with pytest.raises(ParameterError, match=rf"{most + 1} bits .* below 128 bits of security.* {most}$"):
        ParameterSet("insecure", degree, forbidden)
    assert not is_accepted_by_seal(degree, forbidden)


def test_the_special_prime_counts() -> None:
    data_primes = primes_of(4096, 109)
    with pytest.raises(ParameterError, match="128 bits of security"):
        ParameterSet("insecure", 4096, (*data_primes, 0x1C001))


@pytest.mark.parametrize("degree", [-2048, 0, 1, 512, 2047, 2049, 65536, 2**40])
def test_a_degree_outside_the_table_is_refused(degree: int) -> None:
    with pytest.raises(ParameterError, match=f"degree {degree} is not one of 1024, 2048"):
        ParameterSet("odd", degree, (PRIME,))


# Primes


@pytest.mark.parametrize(
    "primes",
    [
        (),
        (0,),
        (1,),  # the least number that is 1 modulo 2N
        (-4095,),
        (4096,),
        (PRIME - 1,),
        (PRIME + 2,),
        (12289, 12289),
        (12289, 40961, 12289),
        (2**60 + 1,),
        (2**64 + 1,),
    ],
    ids=repr,
)
def test_primes_that_are_none_for_the_ring_are_refused(primes: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError):
        ParameterSet("odd", 2048, primes)


def test_too_many_primes_are_refused_by_their_number() -> None:
    """The product of the primes is compared with the table.

    Of as many primes as fit into one message, it would take minutes.
    """
    candidates = tuple(k * 4096 + 1 for k in range(1, MAX_PRIMES + 2))
    with pytest.raises(ParameterError, match=f"at most {MAX_PRIMES}$"):
        ParameterSet("many", 2048, candidates)
    with pytest.raises(ParameterError, match="128 bits of security"):
        ParameterSet("many", 2048, candidates[:-1])


def test_a_prime_of_another_ring_is_refused() -> None:
    assert 12289 % 4096 == 1 != 12289 % 8192
    assert ParameterSet("own", 2048, (12289,)).modulus == 12289
    with pytest.raises(ParameterError, match="12289 is not 1 modulo 2N"):
        ParameterSet("another's", 4096, (12289,))


@settings(deadline=None, max_examples=60)
@given(candidate=st.integers(1, (2**54 - 2) // 4096).map(lambda k: k * 4096 + 1))
def test_a_composite_never_becomes_a_context(candidate: int) -> None:
    """The set itself checks the residue only; SEAL, which checks for primes, refuses."""
    parameters = EncryptionParameters(ParameterSet("candidate", 2048, (candidate,)), 2)
    if seal.Modulus(candidate).is_prime():
        assert _seal.context(parameters).parameters_set()
    else:
        with pytest.raises(ParameterError, match=r"candidate: SEAL refuses it: .*non-prime"):
            _seal.context(parameters)


# Plaintext moduli


@SETS
def test_the_plaintext_modulus_has_bounds(parameter_set: ParameterSet) -> None:
    most = min(parameter_set.modulus, 1 << MAX_PLAIN_MODULUS_BITS) - 1
    for t in (2, 3, 1 << 40, most):
        assert EncryptionParameters(parameter_set, t).plain_modulus == t
    for t in (-2, 0, 1, most + 1, most + 2, 1 << 64):
        with pytest.raises(ParameterError, match=rf"plaintext modulus within 2\.\.2\^60 .* these are {t} and 1\.0$"):
            EncryptionParameters(parameter_set, t)


@pytest.mark.parametrize("t", [TWO_PRIMES.primes[0], TWO_PRIMES.primes[-1], 6 * TWO_PRIMES.primes[-1]])
def test_a_plaintext_modulus_that_shares_a_factor_with_the_primes_is_refused(t: int) -> None:
    with pytest.raises(ParameterError, match=r"row-4096-92: SEAL refuses it: .*coprime"):
        _seal.context(EncryptionParameters(TWO_PRIMES, t))


# The named sets


@SETS
@pytest.mark.parametrize("t", [2, 1 << 20, 786433, 1 << 43, 1 << 45])
def test_seal_accepts_the_named_sets(parameter_set: ParameterSet, t: int) -> None:
    if parameter_set.name.endswith("-2048-44") and t == 1 << 45:
        with pytest.raises(ParameterError, match="below the ciphertext modulus"):
            EncryptionParameters(parameter_set, t)
        return
    context = _seal.context(EncryptionParameters(parameter_set, t))
    parms = context.first_context_data().parms()
    assert parms.poly_modulus_degree() == parameter_set.poly_modulus_degree
    assert tuple(modulus.value() for modulus in parms.coeff_modulus()) == parameter_set.data_primes
    assert parms.plain_modulus().value() == t


@SETS
def test_the_names_say_what_they_are(parameter_set: ParameterSet) -> None:
    _, degree, bits = parameter_set.name.split("-")
    assert parameter_set.poly_modulus_degree == int(degree)
    assert parameter_set.modulus.bit_length() == int(bits)
    assert parameter_set.polynomial_bytes == 8 * int(degree) * len(parameter_set.data_primes)
    assert all(prime.bit_length() <= MAX_PRIME_BITS for prime in parameter_set.primes)


def test_columns_have_the_rings_of_rows() -> None:
    """One secret key serves both: it belongs to N and the primes, whatever the name."""
    for row, column in zip(LAYOUTS["row"].open_parameter_sets, LAYOUTS["column"].open_parameter_sets, strict=True):
        assert (column.poly_modulus_degree, column.primes) == (row.poly_modulus_degree, row.primes)
        assert (row.name.split("-")[0], column.name.split("-")[0]) == ("row", "column")
        assert row.name.split("-")[1:] == column.name.split("-")[1:]
        t = 1 << 20
        contexts = [_seal.context(EncryptionParameters(parameter_set, t)) for parameter_set in (row, column)]
        assert len({_seal.key_parms_id(context) for context in contexts}) == 1
        assert SecretKey.generate(row).fits(column)
        assert SecretKey.generate(column).fits(row)


@SETS
def test_seal_finds_the_named_sets_secure(parameter_set: ParameterSet) -> None:
    """SEAL builds no context below tc128."""
    N, bits = parameter_set.poly_modulus_degree, math.prod(parameter_set.primes).bit_length()
    assert bits <= seal.CoeffModulus.MaxBitCount(N, seal.sec_level_type.tc128) == MAX_MODULUS_BITS[N]
    assert is_accepted_by_seal(N, parameter_set.primes)
    assert all(seal.Modulus(prime).is_prime() for prime in parameter_set.primes)


@SETS
def test_data_primes_are_the_greatest_of_their_bits_for_the_ring(parameter_set: ParameterSet) -> None:
    """The rule of `RINGS`, so that nobody has to trust a choice of primes."""
    step, bits = 2 * parameter_set.poly_modulus_degree, max(parameter_set.data_primes).bit_length()
    candidates = range(((1 << bits) - 2) // step * step + 1, 1 << bits - 1, -step)
    greatest = (number for number in candidates if seal.Modulus(number).is_prime())
    assert sorted(parameter_set.data_primes, reverse=True) == list(islice(greatest, len(parameter_set.data_primes)))


def test_the_named_sets_are_in_order_of_cost() -> None:
    assert len({s.name for s in EVERY_SET}) == len(EVERY_SET)
    assert LAYOUTS["row"].private_parameter_sets[0] == LAYOUTS["row"].open_parameter_sets[-1]
    for cheaper, dearer in pairwise(EVERY_SET):
        assert (cheaper.polynomial_bytes, cheaper.modulus) < (dearer.polynomial_bytes, dearer.modulus)


def test_the_last_of_several_primes_carries_no_data() -> None:
    assert SMALLEST.data_primes == SMALLEST.primes
    assert TWO_PRIMES.data_primes == TWO_PRIMES.primes[:2]
    assert TWO_PRIMES.modulus == TWO_PRIMES.primes[0] * TWO_PRIMES.primes[1]


def test_every_plaintext_modulus_has_a_parms_id_of_its_own() -> None:
    contexts = [_seal.context(EncryptionParameters(s, t)) for s in EVERY_SET for t in (2, 3, 1 << 20, 1 << 21)]
    for parms_id in (_seal.fresh_parms_id, _seal.key_parms_id):
        ids = [parms_id(context) for context in contexts]
        assert len(set(ids)) == len(ids)
        assert {len(value) for value in ids} == {32}


def test_a_key_and_a_fresh_ciphertext_share_their_parms_id_only_where_no_prime_is_special() -> None:
    for parameter_set in EVERY_SET:
        context = _seal.context(EncryptionParameters(parameter_set, 16))
        same = _seal.fresh_parms_id(context) == _seal.key_parms_id(context)
        assert same is (len(parameter_set.primes) == 1)


def test_keys_belong_to_the_ring_whatever_the_plaintext_modulus() -> None:
    assert key_parameters(SMALLEST) == EncryptionParameters(SMALLEST, 2)
    for parameter_set in EVERY_SET:
        same = ParameterSet("column", parameter_set.poly_modulus_degree, parameter_set.primes)
        assert parameter_set.shares_ring(same)
        assert [other for other in EVERY_SET if other.shares_ring(parameter_set)] == [parameter_set]
        assert _seal.key_parms_id(_seal.context(key_parameters(same))) == _seal.key_parms_id(
            _seal.context(key_parameters(parameter_set))
        )
    first, second, special = TWO_PRIMES.primes
    assert not TWO_PRIMES.shares_ring(ParameterSet("reordered", 4096, (second, first, special)))
