"""Encryptions of zero decrypt to zero under every t, are never equal, and keep a noise bound."""

import math
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.planning.noise import NOISE, zero_noise
from tests.support.mutations import damaged
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.seeded import unseeded_public_key

EVERY_SET = (LAYOUTS["row"].open_parameter_sets[0], *LAYOUTS["row"].private_parameter_sets)
every_set = pytest.mark.parametrize("parameter_set", EVERY_SET, ids=lambda parameter_set: parameter_set.name)


def encryptor_of(key: SecretKey, parameter_set: ParameterSet) -> ZeroEncryptor:
    return ZeroEncryptor(parameter_set, key.public_encryption_key)


def sum_of(parameter_set: ParameterSet, ciphertext: NDArray[np.uint64], zero: NDArray[np.uint64]) -> NDArray[np.uint64]:
    primes = np.array(parameter_set.data_primes, np.uint64)[:, None]
    return (ciphertext + zero) % primes


@every_set
def test_zeros_change_no_score_whatever_the_plaintext_modulus(parameter_set: ParameterSet) -> None:
    key = SecretKey.generate(parameter_set)
    zeros = encryptor_of(key, parameter_set)
    N = parameter_set.poly_modulus_degree
    everywhere = np.arange(N, dtype=np.intp)
    for t in (2, 1 << 20, 65521):
        parameters = EncryptionParameters(parameter_set, t)
        plaintext = np.arange(N, dtype=np.uint64) % t
        form = CiphertextFormat(parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))
        ciphertext = form.residues(Encryptor(parameters, key.export(TOKEN)).encrypt(plaintext))
        c0, c1 = sum_of(parameter_set, ciphertext, zeros.encrypt())
        decrypted = Decryptor(parameters, key.export(TOKEN)).decrypt(c0.tobytes(), c1.tobytes(), everywhere)
        np.testing.assert_array_equal(decrypted, plaintext)


@every_set
def test_no_two_are_alike_and_residues_are_below_their_primes(parameter_set: ParameterSet) -> None:
    zeros = encryptor_of(SecretKey.generate(parameter_set), parameter_set)
    first, second = zeros.encrypt(), zeros.encrypt()
    primes = np.array(parameter_set.data_primes, np.uint64)[:, None]
    assert first.shape == (2, len(parameter_set.data_primes), parameter_set.poly_modulus_degree)
    for zero in (first, second):
        assert (zero < primes).all()
    assert np.mean(first == second) < 0.001


@every_set
def test_the_noise_is_what_it_is_planned_with(parameter_set: ParameterSet) -> None:
    N, special = parameter_set.poly_modulus_degree, parameter_set.primes[-1]
    key = SecretKey.generate(parameter_set)
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    noisy, zeros = NoisyEncryptor(parameters, key.export(TOKEN)), encryptor_of(key, parameter_set)
    form = CiphertextFormat(parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))
    nothing = np.zeros(N, np.uint64)
    packed = [form.pack(c0, c1.tobytes()) for c0, c1 in (zeros.encrypt() for _ in range(10))]
    noise = np.array([noisy.noise(data, nothing) for data in packed], float)
    assert np.abs(noise).max() <= zero_noise(parameter_set)
    # The noise is e u + e0 + e1 s, where 2/3 of a ternary polynomial's coefficients are 1 or -1.
    # Rounding adds 1 / 12 each, and again times s.
    variance = NOISE / 2 * (2 * N * 2 / 3 + 1)
    if len(parameter_set.primes) > 1:
        variance = variance / special**2 + (1 + N * 2 / 3) / 12
    assert abs(np.var(noise) / variance - 1) < 0.15
    # The worst e, u, s would reach a bound without slack. Among random ones the largest is some
    # deviations away from it.
    assert np.abs(noise).max() > 3 * math.sqrt(variance)


def test_the_bound_on_the_noise() -> None:
    assert zero_noise(ParameterSet("one", 2048, LAYOUTS["row"].open_parameter_sets[0].primes)) == 21 * 4097
    special = 0x1C001
    assert (
        zero_noise(LAYOUTS["row"].private_parameter_sets[0])
        == (21 * 8193 + (special - 1) // 2 * 4097) // special
        == 2049
    )


def test_of_damaged_keys_each_is_refused_or_is_a_key() -> None:
    """Never does SEAL crash, or raise what is not translated."""
    parameter_set = LAYOUTS["row"].private_parameter_sets[0]
    primes = np.array(parameter_set.data_primes, np.uint64)[:, None]
    data, ends = SecretKey.generate(parameter_set).public_encryption_key, list[KeyFault | None]()
    for seed in range(400):
        try:
            encryptor = ZeroEncryptor(parameter_set, damaged(data, random.Random(seed)))
        except MalformedKeyError as error:
            ends.append(error.reason)
        else:
            assert (encryptor.encrypt() < primes).all()
            ends.append(None)
    assert {None, KeyFault.FORMAT, KeyFault.PARAMETERS, KeyFault.COEFFICIENT} <= set(ends)


def test_what_is_no_key_of_the_ring_is_refused() -> None:
    first, second, *_ = LAYOUTS["row"].private_parameter_sets
    data = SecretKey.generate(first).public_encryption_key
    unseeded = unseeded_public_key(first, SecretKey.generate(first).export(TOKEN))
    # SEAL keeps both polynomials.
    assert 0 <= len(unseeded) - ZeroEncryptor(first, data).byte_count < 1024
    for parameter_set, hostile in ((second, data), (first, data[:-8]), (first, bytes(len(data)))):
        with pytest.raises(MalformedKeyError) as caught:
            ZeroEncryptor(parameter_set, hostile)
        assert caught.value.reason is KeyFault.FORMAT
    with pytest.raises(MalformedKeyError) as caught:
        ZeroEncryptor(first, unseeded)
    assert caught.value.reason is KeyFault.UNSEEDED
