"""Encryptor and Decryptor: what one encrypts the other decrypts, in any memory order.

What is malformed is refused.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.errors import ReplyError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat, plaintext_coefficients, restamp
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN

RANDOM = np.random.default_rng(6)
KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in LAYOUTS["row"].open_parameter_sets}
SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
SETS = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)


def parameters_of(parameter_set: ParameterSet, bits: int = 20) -> EncryptionParameters:
    return EncryptionParameters(parameter_set, 1 << bits)


def residues_of(parameters: EncryptionParameters, ciphertext: bytes) -> NDArray[np.uint64]:
    context = _seal.context(parameters)
    return CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(context)).residues(ciphertext)


def reply_of(parameters: EncryptionParameters, ciphertext: bytes, places: NDArray[np.intp]) -> tuple[bytes, bytes]:
    """The ciphertext as a service would send it back: c1 whole, of c0 some places."""
    c0, c1 = residues_of(parameters, ciphertext)
    return c0[:, places].tobytes(), c1.tobytes()


def random_coefficients(parameters: EncryptionParameters) -> NDArray[np.uint64]:
    degree = parameters.parameter_set.poly_modulus_degree
    return RANDOM.integers(parameters.plain_modulus, size=degree).astype(np.uint64)


@SETS
@pytest.mark.parametrize("bits", [1, 20, 40])
def test_what_is_encrypted_is_decrypted(parameter_set: ParameterSet, bits: int) -> None:
    # With t above q / 43 not even what is fresh can be decrypted: 43 = 2 (21 + 1/2).
    most = (parameter_set.modulus // 43).bit_length() - 1
    parameters, key = parameters_of(parameter_set, min(bits, most)), KEYS[parameter_set]
    coefficients = random_coefficients(parameters)
    everywhere = np.arange(coefficients.size)
    reply = reply_of(parameters, Encryptor(parameters, key).encrypt(coefficients), everywhere)
    assert np.array_equal(Decryptor(parameters, key).decrypt(*reply, everywhere), coefficients)


@settings(deadline=None, max_examples=20)
@given(chosen=st.sets(st.integers(0, SMALLEST.poly_modulus_degree - 1), min_size=1, max_size=40))
def test_some_places_are_decrypted_without_the_others(chosen: set[int]) -> None:
    parameters, key = parameters_of(SMALLEST), KEYS[SMALLEST]
    coefficients, places = random_coefficients(parameters), np.array(sorted(chosen), np.intp)
    reply = reply_of(parameters, Encryptor(parameters, key).encrypt(coefficients), places)
    assert np.array_equal(Decryptor(parameters, key).decrypt(*reply, places), coefficients[places])


# SEAL reads memory as if it had no strides.
VIEWS: dict[str, Callable[[NDArray[np.uint64]], NDArray[np.uint64]]] = {
    "a column": lambda table: table[:, 1],
    "a column backwards": lambda table: table[::-1, 0],
    "every third": lambda table: table.ravel()[::3],
    "of Fortran order": lambda table: np.asfortranarray(table[:, :1]).ravel("K")[::-1],
    "read-only": lambda table: np.broadcast_to(table[7, 2], (len(table),)),
}


@pytest.mark.parametrize("view", VIEWS)
@SETS
def test_strided_arrays_are_encrypted_as_they_read(parameter_set: ParameterSet, view: str) -> None:
    parameters, key = parameters_of(parameter_set), KEYS[parameter_set]
    degree = parameter_set.poly_modulus_degree
    coefficients = VIEWS[view](RANDOM.integers(parameters.plain_modulus, size=(degree, 3)).astype(np.uint64))
    assert coefficients.shape == (degree,)
    assert not coefficients.flags.c_contiguous
    everywhere = np.arange(degree)
    reply = reply_of(parameters, Encryptor(parameters, key).encrypt(coefficients), everywhere)
    assert Decryptor(parameters, key).decrypt(*reply, everywhere).tolist() == coefficients.tolist()


def test_no_two_encryptions_are_alike() -> None:
    parameters = parameters_of(SMALLEST)
    encryptor = Encryptor(parameters, KEYS[SMALLEST])
    zeros = np.zeros(SMALLEST.poly_modulus_degree, np.uint64)
    first, second = (residues_of(parameters, encryptor.encrypt(zeros)) for _ in range(2))
    assert (first != second).mean() > 0.99


@SETS
def test_another_key_decrypts_noise(parameter_set: ParameterSet) -> None:
    parameters, everywhere = parameters_of(parameter_set), np.arange(parameter_set.poly_modulus_degree)
    coefficients = random_coefficients(parameters)
    reply = reply_of(parameters, Encryptor(parameters, KEYS[parameter_set]).encrypt(coefficients), everywhere)
    other = SecretKey.generate(parameter_set).export(TOKEN)
    assert (Decryptor(parameters, other).decrypt(*reply, everywhere) != coefficients).mean() > 0.99


@SETS
def test_the_noise_of_a_fresh_ciphertext_is_what_the_planner_relies_on(parameter_set: ParameterSet) -> None:
    """The noise v of an encryption of zeros is at most 21.

    The product w v decrypts to zeros as long as it stays below q / 2t.
    """
    bits = min(40, parameter_set.modulus.bit_length() - 10)
    parameters, key = parameters_of(parameter_set, bits), KEYS[parameter_set]
    q, t, degree = parameter_set.modulus, parameters.plain_modulus, parameter_set.poly_modulus_degree
    everywhere = np.arange(degree)
    primes = np.array(parameter_set.data_primes, object)[:, None]
    residues = residues_of(parameters, Encryptor(parameters, key).encrypt(np.zeros(degree, np.uint64))).astype(object)
    decryptor = Decryptor(parameters, key)

    def decrypted(factor: int) -> NDArray[np.uint64]:
        c0, c1 = (residues * factor % primes).astype(np.uint64)
        return decryptor.decrypt(c0.tobytes(), c1.tobytes(), everywhere)

    assert not decrypted(q // (43 * t)).any()  # 43 = 2 (21 + 1/2)
    # Among thousands of coefficients some have noise of 7 and more (standard deviation 3.2).
    assert decrypted(q // (14 * t) + 1).any()


# Replies that are not well-formed


@SETS
def test_a_residue_at_its_prime_is_refused_wherever_it_is(parameter_set: ParameterSet) -> None:
    parameters, key = parameters_of(parameter_set), KEYS[parameter_set]
    places, degree = np.array([3, 7, parameter_set.poly_modulus_degree - 1]), parameter_set.poly_modulus_degree
    ciphertext = Encryptor(parameters, key).encrypt(np.zeros(degree, np.uint64))
    reply, decryptor = reply_of(parameters, ciphertext, places), Decryptor(parameters, key)
    for polynomial, row_bytes in enumerate((8 * places.size, 8 * degree)):
        for index, prime in enumerate(parameter_set.data_primes):
            for at in (index * row_bytes, (index + 1) * row_bytes - 8):
                for residue in (prime, 2**64 - 1):
                    bad = bytearray(reply[polynomial])
                    bad[at : at + 8] = residue.to_bytes(8, "little")
                    c0, c1 = (bytes(bad), reply[1]) if polynomial == 0 else (reply[0], bytes(bad))
                    with pytest.raises(ReplyError):
                        decryptor.decrypt(c0, c1, places)
    assert not decryptor.decrypt(*reply, places).any()


@SETS
@pytest.mark.parametrize("change", [-8, -1, 1, 8], ids=lambda change: f"{change:+} bytes")
def test_another_length_is_refused(parameter_set: ParameterSet, change: int) -> None:
    parameters, key = parameters_of(parameter_set), KEYS[parameter_set]
    places, degree = np.arange(5), parameter_set.poly_modulus_degree
    c0, c1 = reply_of(parameters, Encryptor(parameters, key).encrypt(np.zeros(degree, np.uint64)), places)
    decryptor = Decryptor(parameters, key)
    for bad in ((resized(c0, change), c1), (c0, resized(c1, change)), (c1, c0), (b"", c1), (c0, b"")):
        with pytest.raises(ReplyError):
            decryptor.decrypt(*bad, places)


def resized(data: bytes, change: int) -> bytes:
    return data[:change] if change < 0 else data + bytes(change)


# Keys


def test_one_key_serves_every_plaintext_modulus() -> None:
    key, everywhere = KEYS[SMALLEST], np.arange(SMALLEST.poly_modulus_degree)
    for t in (2, 3, 1 << 20, 786433):
        parameters = EncryptionParameters(SMALLEST, t)
        coefficients = random_coefficients(parameters)
        reply = reply_of(parameters, Encryptor(parameters, key).encrypt(coefficients), everywhere)
        assert np.array_equal(Decryptor(parameters, key).decrypt(*reply, everywhere), coefficients)


@pytest.mark.parametrize("role", [Encryptor, Decryptor])
def test_a_key_of_another_ring_is_refused(role: Callable[[EncryptionParameters, bytes], object]) -> None:
    for parameter_set in LAYOUTS["row"].open_parameter_sets:
        for other, key in KEYS.items():
            if other is not parameter_set:
                with pytest.raises(_seal.SealError):
                    role(parameters_of(parameter_set), key)


def test_seal_itself_decrypts_what_the_encryptor_writes() -> None:
    parameters, key = parameters_of(SMALLEST), KEYS[SMALLEST]
    coefficients = random_coefficients(parameters)
    context = _seal.context(parameters)
    secret = _seal.load_secret_key(context, restamp(key, _seal.key_parms_id(context)))
    ciphertext = _seal.load_ciphertext(context, Encryptor(parameters, key).encrypt(coefficients))
    data = _seal.plaintext_bytes(_seal.Decryptor(context, secret).decrypt(ciphertext))
    assert np.array_equal(plaintext_coefficients(data, coefficients.size), coefficients)
