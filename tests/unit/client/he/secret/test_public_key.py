"""The seeded public key: half the bytes, SEAL's own noise to the coefficient, and an `a` of a seed.

What it must not give away is in test_public_key_secrecy.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, public_key_bytes, unseeded_public_key_bytes
from sealserve.he.seal_format import (
    RESIDUES_AT,
    SEED_BYTES,
    SEED_INFO_BYTES,
    pack_plaintext,
    plaintext_coefficients,
    restamp,
)
from sealserve.he.secret.public_key import generate_public_key
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support.affine_models import Integers
from tests.support.blake2xb import expanded
from tests.support.seal_spy import SealSpy, seal_spy
from tests.support.seeded import unseeded_public_key

LAYOUT = LAYOUTS["row"]
EVERY_SET = (*LAYOUT.open_parameter_sets, *LAYOUT.private_parameter_sets[1:], EI_PARAMETER_SET)
KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in EVERY_SET}
SETS = pytest.mark.parametrize("parameter_set", EVERY_SET, ids=lambda s: s.name)

spy = pytest.fixture(seal_spy)


def made(parameter_set: ParameterSet) -> bytes:
    return generate_public_key(parameter_set, KEYS[parameter_set])


def values_of(parameter_set: ParameterSet, unseeded: bytes) -> Integers:
    """The values of b and a at the roots, (2, primes, N)."""
    shape = 2, len(parameter_set.primes), parameter_set.poly_modulus_degree
    return np.frombuffer(unseeded, np.uint64, offset=RESIDUES_AT).reshape(shape).astype(object)


def as_seal_loads(parameter_set: ParameterSet, public_key: bytes) -> Integers:
    """What SEAL makes of a seeded key: (2, primes, N)."""
    loaded = _seal.load_public_key(_seal.context(key_parameters(parameter_set)), public_key)
    return values_of(parameter_set, loaded.to_string())


def noise_at_roots(parameter_set: ParameterSet, b: Integers, a: Integers) -> NDArray[np.uint64]:
    """Compute b + a s modulo each prime, in NTT form: (primes, N)."""
    primes = np.array(parameter_set.primes, object)[:, None]
    secret = plaintext_coefficients(KEYS[parameter_set], b.size).reshape(b.shape).astype(object)
    noise: NDArray[np.uint64] = ((b + a * secret) % primes).astype(np.uint64)
    return noise


@SETS
def test_it_is_half_as_long_and_what_the_service_takes(parameter_set: ParameterSet) -> None:
    data = made(parameter_set)
    check_public_key(parameter_set, data)
    assert len(data) == public_key_bytes(parameter_set)
    half = 8 * len(parameter_set.primes) * parameter_set.poly_modulus_degree
    assert len(data) == unseeded_public_key_bytes(parameter_set) - half + SEED_INFO_BYTES


@SETS
def test_a_is_the_expansion_that_the_protos_describe(parameter_set: ParameterSet) -> None:
    """Of 60-bit primes, one word in sixteen is rejected."""
    data = made(parameter_set)
    a = as_seal_loads(parameter_set, data)[1]
    np.testing.assert_array_equal(
        a, expanded(data[-SEED_BYTES:], parameter_set.primes, parameter_set.poly_modulus_degree)
    )


@SETS
def test_the_seed_is_what_the_system_drew_for_this_key(parameter_set: ParameterSet, spy: SealSpy) -> None:
    keys = [made(parameter_set) for _ in range(20)]
    assert [key[-SEED_BYTES:] for key in keys] == spy.seeds
    assert len(set(spy.seeds)) == len(keys)
    assert {len(seed) for seed in spy.seeds} == {SEED_BYTES}
    values = [key[RESIDUES_AT:-SEED_INFO_BYTES] for key in keys]
    first, second = (np.frombuffer(value, np.uint64) for value in values[:2])
    assert (first != second).mean() > 0.99


@SETS
def test_the_noise_is_that_of_the_key_it_was_moved_from(parameter_set: ParameterSet, spy: SealSpy) -> None:
    """It is the same at every root, so that its distribution and bound are SEAL's."""
    for _ in range(5):
        spy.forget()
        b, a = as_seal_loads(parameter_set, made(parameter_set))
        (pair,) = spy.pairs
        old_b, old_a = values_of(parameter_set, pair)
        assert (a != old_a).mean() > 0.99
        noise = noise_at_roots(parameter_set, b, a)
        np.testing.assert_array_equal(noise, noise_at_roots(parameter_set, old_b, old_a))


def test_the_noise_is_one_small_polynomial_modulo_all_primes() -> None:
    """The centred binomial distribution of 42 coins: variance 21/2, at most 21.

    The variance of 20 keys is within seven standard errors, which does not fail by chance.
    """
    parameter_set = LAYOUT.private_parameter_sets[0]
    twin, primes = _seal.key_level_context(parameter_set), np.array(parameter_set.primes, object)[:, None]
    found = []
    for _ in range(20):
        data = made(parameter_set)
        noise = noise_at_roots(parameter_set, *as_seal_loads(parameter_set, data))
        prefix = restamp(_unseeded_prefix(parameter_set), _seal.fresh_parms_id(twin))
        ciphertext = _seal.load_ciphertext(twin, prefix + noise.tobytes() * 2)
        _seal.Evaluator(twin).transform_from_ntt_inplace(ciphertext)
        residues = values_of(parameter_set, _seal.ciphertext_bytes(ciphertext))[0]
        centred = (residues + primes // 2) % primes - primes // 2
        assert (centred == centred[0]).all()
        found.append(centred[0].astype(np.int64))
    coefficients, variance = np.concatenate(found), 21 / 2
    assert np.abs(coefficients).max() <= 21
    fourth_moment = (3 - 2 / 42) * variance**2
    assert abs((coefficients**2).mean() - variance) < 7 * ((fourth_moment - variance**2) / coefficients.size) ** 0.5


def _unseeded_prefix(parameter_set: ParameterSet) -> bytes:
    return unseeded_public_key(parameter_set, KEYS[parameter_set])[:RESIDUES_AT]


def test_the_one_prime_more_is_none_of_the_set() -> None:
    """12289 is the least prime that fits N = 2048, and 40961 the next."""
    for primes, more in (((0x10001, 114689), 12289), ((12289, 0x10001), 40961), ((40961, 12289), 61441)):
        parameter_set = ParameterSet("small", 2048, primes)
        twin = _seal.key_level_context(parameter_set)
        modulus = [prime.value() for prime in twin.key_context_data().parms().coeff_modulus()]
        assert modulus == [*primes, more]
        data = generate_public_key(parameter_set, SecretKey.generate(parameter_set).export(TOKEN))
        check_public_key(parameter_set, data)


def test_a_key_of_another_ring_is_refused() -> None:
    for parameter_set in EVERY_SET:
        for other, key in KEYS.items():
            if other is not parameter_set:
                with pytest.raises(_seal.SealError):
                    generate_public_key(parameter_set, key)


def test_a_key_with_a_residue_at_its_prime_is_refused() -> None:
    parameter_set = EVERY_SET[0]
    context = _seal.context(key_parameters(parameter_set))
    values = plaintext_coefficients(KEYS[parameter_set], parameter_set.poly_modulus_degree)
    values[7] = parameter_set.primes[0]
    with pytest.raises(_seal.SealError):
        generate_public_key(parameter_set, restamp(pack_plaintext(values), _seal.key_parms_id(context)))
