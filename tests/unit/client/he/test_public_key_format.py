"""Public keys as hostile bytes: every byte before the residues is checked.

Every bad key is refused for its own reason.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.he.parameters import EncryptionParameters, ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, public_key_bytes
from sealserve.he.seal_format import restamp
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN

PARAMETER_SET = LAYOUTS["row"].private_parameter_sets[0]
N, PRIMES = PARAMETER_SET.poly_modulus_degree, PARAMETER_SET.primes
EVERY_SET = (*LAYOUTS["row"].open_parameter_sets, *LAYOUTS["row"].private_parameter_sets[1:], EI_PARAMETER_SET)
# header, parms_id, NTT form, size, N, primes, scale, correction factor, header, count, residues.
PARMS_ID, NTT, SIZE, DEGREE, PRIME_COUNT, SCALE, CORRECTION = 16, 48, 49, 57, 65, 73, 81
INNER, COUNT, RESIDUES = 89, 105, 113
FORMAT, PARAMETERS, COEFFICIENT = KeyFault.FORMAT, KeyFault.PARAMETERS, KeyFault.COEFFICIENT
DEGENERATE = KeyFault.DEGENERATE


@cache
def secret_key(parameter_set: ParameterSet) -> SecretKey:
    return SecretKey.generate(parameter_set)


def key(parameter_set: ParameterSet = PARAMETER_SET) -> bytes:
    return secret_key(parameter_set).public_encryption_key


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def constant(*place: int, value: int) -> Callable[[bytes], bytes]:
    """Makes what is at a place of (polynomial, prime) a constant: the same value at all N roots."""

    def spoil(data: bytes) -> bytes:
        values = np.frombuffer(data, np.uint64, offset=RESIDUES).reshape(2, len(PRIMES), N).copy()
        values[place] = value
        return data[:RESIDUES] + values.tobytes()

    return spoil


def ciphertext(parameter_set: ParameterSet) -> bytes:
    return Encryptor(key_parameters(parameter_set), secret_key(parameter_set).export(TOKEN)).encrypt(
        np.ones(parameter_set.poly_modulus_degree, np.uint64)
    )


def compressed(data: bytes) -> bytes:
    body = zlib.compress(data[16:])
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 4, 1, 0, 16 + len(body)) + body


@pytest.mark.parametrize("parameter_set", EVERY_SET, ids=lambda parameter_set: parameter_set.name)
def test_seals_own_keys_pass(parameter_set: ParameterSet) -> None:
    data = key(parameter_set)
    assert len(data) == public_key_bytes(parameter_set)
    assert _seal.load_public_key(_seal.context(key_parameters(parameter_set)), data)
    for other in EVERY_SET:
        if other is parameter_set:
            check_public_key(other, data)
        else:
            with pytest.raises(MalformedKeyError):
                check_public_key(other, data)


def test_a_set_of_another_name_has_the_same_keys() -> None:
    check_public_key(ParameterSet("column-4096-92", N, PRIMES), key())


@pytest.mark.parametrize("minor", [0, 1, 5])
def test_any_minor_version_of_seal_4_will_do(minor: int) -> None:
    check_public_key(PARAMETER_SET, put(put(key(), 4, bytes([minor])), INNER + 4, bytes([minor])))


BAD_KEYS: dict[str, tuple[KeyFault, Callable[[bytes], bytes]]] = {
    "empty": (FORMAT, lambda _: b""),
    "a header alone": (FORMAT, lambda data: data[:16]),
    "truncated by a byte": (FORMAT, lambda data: data[:-1]),
    "a byte too long": (FORMAT, lambda data: data + b"\0"),
    "compressed": (FORMAT, compressed),
    "zeros": (FORMAT, lambda data: bytes(len(data))),
    "a ciphertext": (FORMAT, lambda _: ciphertext(PARAMETER_SET)),
    "a ciphertext, filled up": (FORMAT, lambda data: ciphertext(PARAMETER_SET).ljust(len(data), b"\0")),
    "a secret key": (FORMAT, lambda _: secret_key(PARAMETER_SET).export(TOKEN)),
    "of another plaintext modulus": (
        PARAMETERS,
        lambda data: restamp(data, _seal.key_parms_id(_seal.context(EncryptionParameters(PARAMETER_SET, 1 << 20)))),
    ),
    "of the data level": (
        PARAMETERS,
        lambda data: restamp(data, _seal.fresh_parms_id(_seal.context(key_parameters(PARAMETER_SET)))),
    ),
    "of other primes": (
        PARAMETERS,
        lambda _: key(ParameterSet("other", N, (PRIMES[1], PRIMES[0], PRIMES[2]))),
    ),
    "a residue at its prime": (COEFFICIENT, lambda data: put(data, RESIDUES, struct.pack("<Q", PRIMES[0]))),
    "the last residue at its prime": (COEFFICIENT, lambda data: data[:-8] + struct.pack("<Q", PRIMES[-1])),
    "a residue of 64 ones": (COEFFICIENT, lambda data: put(data, RESIDUES + 8 * N, b"\xff" * 8)),
    **{
        f"{name} polynomial {what}": (DEGENERATE, constant(index, value=value))
        for index, name in enumerate(("first", "second"))
        for what, value in (("zero", 0), ("one", 1), ("a constant", 12345))
    },
    "second polynomial zero modulo one prime": (DEGENERATE, constant(1, 1, value=0)),
    "second polynomial a constant modulo the special prime": (DEGENERATE, constant(1, 2, value=7)),
    **{
        f"{what} bit-flipped": (reason, lambda data, at=at: put(data, at, bytes([data[at] ^ 1])))  # type: ignore[misc]
        for what, at, reason in (
            ("magic", 0, FORMAT),
            ("header size", 2, FORMAT),
            ("major version", 3, FORMAT),
            ("compression mode", 5, FORMAT),
            ("reserved field", 6, FORMAT),
            ("total size", 8, FORMAT),
            ("parms_id", PARMS_ID, PARAMETERS),
            ("end of parms_id", NTT - 1, PARAMETERS),
            ("NTT flag", NTT, FORMAT),
            ("number of polynomials", SIZE, FORMAT),
            ("degree", DEGREE, FORMAT),
            ("number of primes", PRIME_COUNT, FORMAT),
            ("scale", SCALE, FORMAT),
            ("correction factor", CORRECTION, FORMAT),
            ("inner magic", INNER, FORMAT),
            ("inner size", INNER + 8, FORMAT),
            ("number of residues", COUNT, FORMAT),
        )
    },
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_key_has_its_reason(name: str) -> None:
    reason, spoil = BAD_KEYS[name]
    with pytest.raises(MalformedKeyError) as caught:
        check_public_key(PARAMETER_SET, spoil(key()))
    assert caught.value.reason is reason


def test_of_a_ring_of_one_prime_a_ciphertext_is_as_long_as_a_key_and_is_none() -> None:
    parameter_set = LAYOUTS["row"].open_parameter_sets[0]
    data = ciphertext(parameter_set)
    assert len(data) == public_key_bytes(parameter_set)
    with pytest.raises(MalformedKeyError) as caught:
        check_public_key(parameter_set, data)
    assert caught.value.reason is FORMAT


def test_seal_itself_would_load_a_degenerate_key() -> None:
    """The check is not SEAL's: without it such a key would encrypt, and hide nothing."""
    context = _seal.context(key_parameters(PARAMETER_SET))
    zero = constant(value=0)(key())
    encryptor = _seal.Encryptor(context, _seal.load_public_key(context, zero))
    data = np.frombuffer(_seal.ciphertext_bytes(encryptor.encrypt_zero()), np.uint64, offset=RESIDUES)
    first = data[:N]
    assert np.minimum(first, np.uint64(PRIMES[0]) - first).max() <= 1  # e0 / P, rounded
