"""Public keys as hostile bytes: every byte before the residues is checked.

Every bad key is refused for its own reason.
"""

import secrets
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
from sealserve.he.public_key_format import check_public_key, public_key_bytes, unseeded_public_key_bytes
from sealserve.he.seal_format import restamp
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support.seeded import unseeded_public_key

PARAMETER_SET = LAYOUTS["row"].private_parameter_sets[0]
N, PRIMES = PARAMETER_SET.poly_modulus_degree, PARAMETER_SET.primes
EVERY_SET = (*LAYOUTS["row"].open_parameter_sets, *LAYOUTS["row"].private_parameter_sets[1:], EI_PARAMETER_SET)
# header, parms_id, NTT form, size, N, primes, scale, correction factor, header, count, residues,
# header, type of the generator, seed.
PARMS_ID, NTT, SIZE, DEGREE, PRIME_COUNT, SCALE, CORRECTION = 16, 48, 49, 57, 65, 73, 81
INNER, COUNT, RESIDUES = 89, 105, 113
SEED_INFO = RESIDUES + 8 * len(PRIMES) * N
GENERATOR, SEED = SEED_INFO + 16, SEED_INFO + 17
FORMAT, PARAMETERS, COEFFICIENT = KeyFault.FORMAT, KeyFault.PARAMETERS, KeyFault.COEFFICIENT
UNSEEDED, DEGENERATE = KeyFault.UNSEEDED, KeyFault.DEGENERATE


@cache
def secret_key(parameter_set: ParameterSet) -> SecretKey:
    return SecretKey.generate(parameter_set)


def key(parameter_set: ParameterSet = PARAMETER_SET) -> bytes:
    return secret_key(parameter_set).public_encryption_key


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def unseeded(parameter_set: ParameterSet = PARAMETER_SET) -> bytes:
    return unseeded_public_key(parameter_set, secret_key(parameter_set).export(TOKEN))


def constant(*primes: int, value: int) -> Callable[[bytes], bytes]:
    """Makes b a constant modulo one prime or all: the same value at all N roots."""

    def spoil(data: bytes) -> bytes:
        values = np.frombuffer(data[RESIDUES:SEED_INFO], np.uint64).reshape(len(PRIMES), N).copy()
        values[primes] = value
        return data[:RESIDUES] + values.tobytes() + data[SEED_INFO:]

    return spoil


def ciphertext(parameter_set: ParameterSet) -> bytes:
    return Encryptor(key_parameters(parameter_set), secret_key(parameter_set).export(TOKEN)).encrypt(
        np.ones(parameter_set.poly_modulus_degree, np.uint64)
    )


def compressed(data: bytes) -> bytes:
    body = zlib.compress(data[16:])
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 4, 1, 0, 16 + len(body)) + body


@pytest.mark.parametrize("parameter_set", EVERY_SET, ids=lambda parameter_set: parameter_set.name)
def test_the_keys_that_we_make_pass(parameter_set: ParameterSet) -> None:
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
    check_public_key(PARAMETER_SET, stamped(minor))


def stamped(minor: int) -> bytes:
    data = key()
    for at in (0, INNER, SEED_INFO):
        data = put(data, at + 4, bytes([minor]))
    return data


@pytest.mark.parametrize("minor", range(4))
def test_seal_expands_seeds_of_older_minor_versions_alike(minor: int) -> None:
    context = _seal.context(key_parameters(PARAMETER_SET))
    loaded = _seal.load_public_key(context, stamped(minor))
    assert loaded.to_string() == _seal.load_public_key(context, key()).to_string()


def test_every_seed_will_do() -> None:
    """Nobody can choose what it expands to."""
    context = _seal.context(key_parameters(PARAMETER_SET))
    for seed in (bytes(64), b"\xff" * 64, secrets.token_bytes(64)):
        data = put(key(), SEED, seed)
        check_public_key(PARAMETER_SET, data)
        expanded = np.frombuffer(_seal.load_public_key(context, data).to_string(), np.uint64, offset=RESIDUES)
        for prime, values in zip(PRIMES, expanded.reshape(2, len(PRIMES), N)[1], strict=True):
            assert values.max() > prime * 0.99
            assert values.min() < prime * 0.01
            assert abs(values.mean() / prime - 0.5) < 0.04  # nine standard deviations


def test_the_bytes_are_those_that_the_protos_list() -> None:
    def header(total_bytes: int) -> bytes:
        return bytes.fromhex("5ea1100404000000") + total_bytes.to_bytes(8, "little")

    data, words = key(), N * len(PRIMES)
    before = header(8 * words + 194) + _seal.key_parms_id(_seal.context(key_parameters(PARAMETER_SET)))
    before += b"\1" + struct.pack("<QQQdQ", 2, N, len(PRIMES), 1.0, 1) + header(8 * words + 24)
    before += words.to_bytes(8, "little")
    assert data.startswith(before)
    assert len(before) == RESIDUES
    assert data[RESIDUES + 8 * words :].startswith(header(81) + b"\1")
    assert len(data) == RESIDUES + 8 * words + 16 + 1 + 64


BAD_KEYS: dict[str, tuple[KeyFault, Callable[[bytes], bytes]]] = {
    "empty": (FORMAT, lambda _: b""),
    "a header alone": (FORMAT, lambda data: data[:16]),
    "truncated by a byte": (FORMAT, lambda data: data[:-1]),
    "a byte too long": (FORMAT, lambda data: data + b"\0"),
    "compressed": (FORMAT, compressed),
    "unseeded": (UNSEEDED, lambda _: unseeded()),
    "as long as an unseeded one": (UNSEEDED, lambda _: bytes(len(unseeded()))),
    "unseeded, truncated by a byte": (FORMAT, lambda _: unseeded()[:-1]),
    "unseeded, compressed": (FORMAT, lambda _: compressed(unseeded())),
    "unseeded, truncated to the length of a seeded one": (FORMAT, lambda data: unseeded()[: len(data)]),
    "seeded, its second polynomial there as well": (FORMAT, lambda data: unseeded() + data[SEED_INFO:]),
    "of the generator SHAKE256": (FORMAT, lambda data: put(data, GENERATOR, b"\x02")),
    "of an unknown generator": (FORMAT, lambda data: put(data, GENERATOR, b"\x00")),
    "without its seed": (FORMAT, lambda data: data[:SEED_INFO]),
    "of a seed of 63 bytes": (FORMAT, lambda data: data[:-1]),
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
    "the last residue at its prime": (
        COEFFICIENT,
        lambda data: put(data, SEED_INFO - 8, struct.pack("<Q", PRIMES[-1])),
    ),
    "a residue of 64 ones": (COEFFICIENT, lambda data: put(data, RESIDUES + 8 * N, b"\xff" * 8)),
    **{
        f"first polynomial {what}": (DEGENERATE, constant(value=value))
        for what, value in (("zero", 0), ("one", 1), ("a constant", 12345))
    },
    "first polynomial zero modulo one prime": (DEGENERATE, constant(1, value=0)),
    "first polynomial a constant modulo the special prime": (DEGENERATE, constant(2, value=7)),
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
            ("magic before the seed", SEED_INFO, FORMAT),
            ("header size before the seed", SEED_INFO + 2, FORMAT),
            ("major version before the seed", SEED_INFO + 3, FORMAT),
            ("compression mode before the seed", SEED_INFO + 5, FORMAT),
            ("size of the seed", SEED_INFO + 8, FORMAT),
        )
    },
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_key_has_its_reason(name: str) -> None:
    reason, spoil = BAD_KEYS[name]
    with pytest.raises(MalformedKeyError) as caught:
        check_public_key(PARAMETER_SET, spoil(key()))
    assert caught.value.reason is reason


def test_of_a_ring_of_one_prime_a_seeded_ciphertext_is_as_long_as_a_key_and_is_none() -> None:
    parameter_set = LAYOUTS["row"].open_parameter_sets[0]
    seeded = SeededEncryptor(key_parameters(parameter_set), secret_key(parameter_set).export(TOKEN))
    data = seeded.encrypt(np.ones(parameter_set.poly_modulus_degree, np.uint64))
    assert len(data) == public_key_bytes(parameter_set)
    with pytest.raises(MalformedKeyError) as caught:
        check_public_key(parameter_set, data)
    assert caught.value.reason is FORMAT


def test_every_unseeded_key_is_refused_by_its_length() -> None:
    for parameter_set in EVERY_SET:
        data = unseeded(parameter_set)
        assert len(data) == unseeded_public_key_bytes(parameter_set)
        with pytest.raises(
            MalformedKeyError, match=r"only seeded public keys .*SecretKey\.public_encryption_key"
        ) as caught:
            check_public_key(parameter_set, data)
        assert caught.value.reason is UNSEEDED


def test_seal_itself_would_load_an_unseeded_key() -> None:
    """The check is not SEAL's."""
    data = unseeded()
    assert _seal.load_public_key(_seal.context(key_parameters(PARAMETER_SET)), data).to_string() == data


def test_seal_itself_would_load_a_degenerate_key() -> None:
    """The check is not SEAL's: without it such a key would encrypt, and hide nothing."""
    context = _seal.context(key_parameters(PARAMETER_SET))
    zero = constant(value=0)(key())
    encryptor = _seal.Encryptor(context, _seal.load_public_key(context, zero))
    data = np.frombuffer(_seal.ciphertext_bytes(encryptor.encrypt_zero()), np.uint64, offset=RESIDUES)
    first = data[:N]
    assert np.minimum(first, np.uint64(PRIMES[0]) - first).max() <= 1  # e0 / P, rounded
