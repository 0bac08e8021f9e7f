"""encrypted-inference 0.9's format: what is read decrypts, and what is bad is refused.

Each refusal has the right reason. Loading without an error proves nothing: a seed that is expanded
by another rule loads and decrypts to garbage.
"""

import itertools
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from sealserve.errors import (
    CiphertextFault,
    KeyFault,
    MalformedCiphertextError,
    MalformedKeyError,
    ReplyError,
)
from sealserve.he import _seal, ei_format
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS
from tests.support.ei_user import EIUser

CONTEXT = _seal.context(EI_PARAMETERS)
EVALUATOR = _seal.Evaluator(CONTEXT)
X = np.random.default_rng(5).uniform(-1, 1, 4096)
TOLERANCE = 5e-6  # a rotation's noise in the first slot has a standard deviation of 5e-7

# An uncompressed seeded ciphertext: header, parms_id, NTT form, size, N, primes, scale, header,
# count, residues, seed.
HEADER = struct.Struct("<HBBBBHQ")
PARMS_ID, NTT, SIZE, DEGREE, PRIMES, SCALE, INNER, COUNT, RESIDUES = 16, 48, 49, 57, 65, 73, 81, 97, 105
N, SEED_BYTES = 8192, 64
CIPHERTEXT_BYTES = RESIDUES + 8 * 3 * N + SEED_BYTES
PART_BYTES = RESIDUES + 8 * 4 * N + SEED_BYTES
# Galois keys: header, parms_id, count, then for each place: count, parts. The first rotation, by 1,
# is at place 1.
PLACES = 48
FIRST_KEY = PLACES + 8 + 8 + 8
GALOIS_BYTES = PLACES + 8 + 8 * N + 12 * 3 * PART_BYTES
RELINEARIZATION_BYTES = PLACES + 8 + 8 + 3 * PART_BYTES


def inflated(data: bytes, at: int = 0) -> bytes:
    """An object of SEAL 3.5, uncompressed."""
    magic, size, major, minor, _, reserved, total = HEADER.unpack_from(data, at)
    body = zlib.decompress(data[at + 16 : at + total])
    return HEADER.pack(magic, size, major, minor, 0, reserved, 16 + len(body)) + body


def deflated(data: bytes, level: int = 1) -> bytes:
    """An object of SEAL 3.5, compressed."""
    magic, size, major, minor, _, reserved, _ = HEADER.unpack_from(data)
    body = zlib.compress(data[16:], level)
    return HEADER.pack(magic, size, major, minor, 1, reserved, 16 + len(body)) + body


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


@pytest.fixture(scope="module")
def ciphertext(ei_user: EIUser) -> bytes:
    """As the client writes it: compressed."""
    return ei_user.encrypt(X)[0]


@pytest.fixture(scope="module")
def plain(ciphertext: bytes) -> bytes:
    return inflated(ciphertext)


@pytest.fixture(scope="module")
def keys(ei_user: EIUser) -> bytes:
    """Both objects, uncompressed."""
    data = ei_user.evaluation_keys
    return inflated(data) + inflated(data, HEADER.unpack_from(data)[-1])


@pytest.fixture(scope="module")
def galois(ei_user: EIUser) -> _seal.GaloisKeys:
    return _seal.load_galois_keys(CONTEXT, ei_format.read_evaluation_keys(ei_user.evaluation_keys).galois)


def loaded(data: bytes) -> _seal.Ciphertext:
    return _seal.load_ciphertext(CONTEXT, ei_format.read_ciphertext(data))


def reply_of(value: _seal.Ciphertext) -> bytes:
    return ei_format.write_ciphertext(_seal.ciphertext_bytes(value))


# What decrypts


def test_a_ciphertext_read_and_written_decrypts_at_every_level(ei_user: EIUser, ciphertext: bytes) -> None:
    value = loaded(ciphertext)
    replies = [reply_of(value)]
    for _ in EI_PARAMETER_SET.data_primes[1:]:
        EVALUATOR.mod_switch_to_next_inplace(value)
        replies.append(reply_of(value))
    np.testing.assert_allclose(ei_user.decrypt(replies), X[0], atol=TOLERANCE)
    assert len(replies[-1]) == RESIDUES + 16 * N
    for reply in replies:
        ei_format.check_reply(reply)
        ei_format.check_reply(deflated(reply))


def test_uncompressed_ciphertexts_are_read_as_well(ei_user: EIUser, ciphertext: bytes, plain: bytes) -> None:
    assert len(plain) == CIPHERTEXT_BYTES
    assert ei_format.read_ciphertext(plain) == ei_format.read_ciphertext(ciphertext)


@pytest.mark.parametrize("step", ei_format.ROTATIONS)
def test_each_galois_key_rotates(ei_user: EIUser, ciphertext: bytes, galois: _seal.GaloisKeys, step: int) -> None:
    rotated = EVALUATOR.rotate_vector(loaded(ciphertext), step, galois)
    np.testing.assert_allclose(ei_user.decrypt([reply_of(rotated)]), X[step], atol=TOLERANCE)


def test_relinearization_keys_relinearize(ei_user: EIUser, ciphertext: bytes) -> None:
    parts = ei_format.read_evaluation_keys(ei_user.evaluation_keys)
    keys = CONTEXT.from_relin_str(parts.relinearization)
    square = EVALUATOR.relinearize(EVALUATOR.square(loaded(ciphertext)), keys)
    EVALUATOR.rescale_to_next_inplace(square)
    np.testing.assert_allclose(ei_user.decrypt([reply_of(square)]), X[0] ** 2, atol=TOLERANCE)


def test_uncompressed_keys_are_read_as_well(ei_user: EIUser, keys: bytes) -> None:
    assert len(keys) == GALOIS_BYTES + RELINEARIZATION_BYTES
    assert ei_format.read_evaluation_keys(keys) == ei_format.read_evaluation_keys(ei_user.evaluation_keys)


# Ciphertexts that are refused

LENGTH, HEAD, PARAMETERS = CiphertextFault.LENGTH, CiphertextFault.HEADER, CiphertextFault.PARAMETERS
FORM, COEFFICIENT = CiphertextFault.FORM, CiphertextFault.COEFFICIENT


def fault_of(data: bytes) -> CiphertextFault:
    with pytest.raises(MalformedCiphertextError) as caught:
        ei_format.read_ciphertext(data)
    return caught.value.reason


def test_a_flip_of_any_bit_before_the_residues_is_found(plain: bytes) -> None:
    fields = {0: HEAD, 8: LENGTH, PARMS_ID: PARAMETERS, NTT: FORM, INNER: HEAD, COUNT: HEAD}
    for at, bit in itertools.product(range(RESIDUES), range(8)):
        found = fault_of(put(plain, at, bytes([plain[at] ^ 1 << bit])))
        expected = fields[max(start for start in fields if start <= at)]
        assert found is expected, (at, bit)


def test_a_flip_of_any_bit_of_the_outer_header_is_found(ciphertext: bytes) -> None:
    for at, bit in itertools.product(range(16), range(8)):
        expected = {HEAD} if at < 5 or 5 < at < 8 else {LENGTH, HEAD}
        assert fault_of(put(ciphertext, at, bytes([ciphertext[at] ^ 1 << bit]))) in expected, (at, bit)


def full(data: bytes) -> bytes:
    """A ciphertext with residues in the place of its seed, as 0.9 never writes one."""
    residues = words(6 * N) + data[RESIDUES:-SEED_BYTES] * 2
    body = data[PARMS_ID:INNER] + HEADER.pack(0xA15E, 16, 3, 5, 0, 0, 16 + len(residues)) + residues
    return HEADER.pack(0xA15E, 16, 3, 5, 0, 0, 16 + len(body)) + body


CHANGES: dict[str, tuple[CiphertextFault, Callable[[bytes], bytes]]] = {
    "parameters of a lower level": (PARAMETERS, lambda d: put(d, PARMS_ID, _seal.data_parms_ids(CONTEXT)[1])),
    "parameters of a key": (PARAMETERS, lambda d: put(d, PARMS_ID, _seal.key_parms_id(CONTEXT))),
    "coefficient form": (FORM, lambda d: put(d, NTT, b"\0")),
    "three polynomials": (FORM, lambda d: put(d, SIZE, words(3))),
    "endless polynomials": (FORM, lambda d: put(d, SIZE, words(2**64 - 1))),
    "another degree": (FORM, lambda d: put(d, DEGREE, words(4096))),
    "fewer primes": (FORM, lambda d: put(d, PRIMES, words(2))),
    "another scale": (FORM, lambda d: put(d, SCALE, struct.pack("<d", 2.0**41))),
    "scale that is no number": (FORM, lambda d: put(d, SCALE, struct.pack("<d", float("nan")))),
    "stamped 3.4": (HEAD, lambda d: put(d, 4, b"\4")),
    "stamped 4.4": (HEAD, lambda d: put(d, 3, b"\4\4")),
    "stamped 4.4 inside": (HEAD, lambda d: put(d, INNER + 3, b"\4\4")),
    "compressed inside": (HEAD, lambda d: put(d, INNER + 5, b"\1")),
    "Zstandard": (HEAD, lambda d: put(d, 5, b"\2")),
    "endless inside": (HEAD, lambda d: put(d, INNER + 8, words(2**64 - 1))),
    "more residues": (HEAD, lambda d: put(d, COUNT, words(6 * N))),
    "nothing": (LENGTH, lambda d: b""),
    "no whole header": (LENGTH, lambda d: d[:15]),
    "a header only": (LENGTH, lambda d: HEADER.pack(0xA15E, 16, 3, 5, 0, 0, 16)),
    "a size below the header's": (LENGTH, lambda d: put(d, 8, words(0))),
    "cut short": (LENGTH, lambda d: d[:-1]),
    "cut short, and says so": (LENGTH, lambda d: put(d, 8, words(len(d) - 1))[:-1]),
    "a byte behind": (LENGTH, lambda d: d + b"\0"),
    "a byte behind, and says so": (LENGTH, lambda d: put(d, 8, words(len(d) + 1)) + b"\0"),
    "twice": (LENGTH, lambda d: d + d),
    "full": (LENGTH, lambda d: full(d)),
    "random": (HEAD, lambda d: random.Random(1).randbytes(len(d))),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_ciphertext(plain: bytes, fault: CiphertextFault, change: Callable[[bytes], bytes]) -> None:
    assert fault_of(change(plain)) is fault


@pytest.mark.parametrize("prime", range(3))
def test_a_coefficient_is_below_its_prime(plain: bytes, prime: int) -> None:
    modulus = EI_PARAMETER_SET.data_primes[prime]
    for place in (0, N - 1):
        at = RESIDUES + 8 * (prime * N + place)
        assert fault_of(put(plain, at, words(modulus))) is COEFFICIENT
        assert fault_of(deflated(put(plain, at, words(2**64 - 1)))) is COEFFICIENT
        loaded(put(plain, at, words(modulus - 1)))


def test_what_is_behind_the_compressed_stream(ciphertext: bytes, plain: bytes) -> None:
    assert fault_of(ciphertext + b"\0") is LENGTH
    assert fault_of(put(ciphertext, 8, words(len(ciphertext) + 1)) + b"\0") is LENGTH
    assert fault_of(put(ciphertext, 8, words(len(ciphertext) - 1))[:-1]) is LENGTH  # no whole checksum
    assert fault_of(deflated(plain + b"\0")) is LENGTH
    assert fault_of(deflated(plain[:-1])) is LENGTH
    assert fault_of(put(ciphertext, len(ciphertext) - 1, bytes([ciphertext[-1] ^ 1]))) is HEAD
    assert fault_of(put(ciphertext, 16, b"\xff\xff")) is HEAD
    assert fault_of(ciphertext[:16]) is LENGTH


def test_no_more_than_a_ciphertext_is_inflated(ei_user: EIUser) -> None:
    bomb = deflated(HEADER.pack(0xA15E, 16, 3, 5, 0, 0, 16) + bytes(100 << 20), 9)
    tracemalloc.start()
    try:
        assert fault_of(bomb) is LENGTH
        with pytest.raises(ReplyError):
            ei_format.check_reply(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10 * CIPHERTEXT_BYTES
        tracemalloc.reset_peak()
        with pytest.raises(MalformedKeyError) as caught:
            ei_format.read_evaluation_keys(bomb)
        assert caught.value.reason is KeyFault.FORMAT
        assert tracemalloc.get_traced_memory()[1] < 4 * GALOIS_BYTES
    finally:
        tracemalloc.stop()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The data with a few bits flipped, a piece cut, repeated, or overwritten."""
    at = chance.choice([chance.randrange(200), chance.randrange(len(data))])
    length = chance.choice([1, 8, 16, 64, 4096])
    match chance.randrange(6):
        case 0:
            return put(data, at, bytes([data[at] ^ 1 << chance.randrange(8)]))
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + length :]
        case 3:
            return data[:at] + chance.randbytes(length) + data[at:]
        case 4:
            return put(data, at, chance.choice([b"\0", b"\xff"]) * min(length, len(data) - at))
        case _:
            start = chance.randrange(len(data))
            return put(data, at, data[start : start + min(length, len(data) - at)])


def test_mutated_ciphertexts_load_or_are_refused(ciphertext: bytes, plain: bytes) -> None:
    chance, refused = random.Random(2), 0
    for _ in range(500):
        try:
            value = loaded(mutated(chance.choice([ciphertext, plain]), chance))
        except MalformedCiphertextError:
            refused += 1
        else:
            assert (value.size(), value.is_ntt_form()) == (2, True)
    assert 250 < refused < 500  # the others have other residues or another seed


# Keys that are refused


def key_fault_of(data: bytes) -> KeyFault:
    with pytest.raises(MalformedKeyError) as caught:
        ei_format.read_evaluation_keys(data)
    return caught.value.reason


FIRST_PART_FIELDS = {
    HEADER.size: KeyFault.PARAMETERS,
    NTT: KeyFault.FORMAT,
    INNER: KeyFault.FORMAT,
    COUNT: KeyFault.FORMAT,
}


def test_a_flip_of_any_header_byte_of_the_keys_is_found(keys: bytes) -> None:
    fields = {0: KeyFault.FORMAT, 16: KeyFault.PARAMETERS, FIRST_KEY: KeyFault.FORMAT}
    fields |= {FIRST_KEY + at: fault for at, fault in FIRST_PART_FIELDS.items()}
    for at in range(FIRST_KEY + RESIDUES):
        expected = fields[max(start for start in fields if start <= at)]
        assert key_fault_of(put(keys, at, bytes([keys[at] ^ 1]))) is expected, at


def test_a_flip_in_later_headers_of_the_keys_is_found(keys: bytes) -> None:
    fields = {0: KeyFault.FORMAT} | FIRST_PART_FIELDS
    last_part = GALOIS_BYTES + RELINEARIZATION_BYTES - PART_BYTES
    for part in (FIRST_KEY + PART_BYTES, last_part):
        for start, expected in fields.items():
            assert key_fault_of(put(keys, part + start, bytes([keys[part + start] ^ 1]))) is expected
    assert key_fault_of(put(keys, GALOIS_BYTES + PARMS_ID, b"\0")) is KeyFault.PARAMETERS
    assert key_fault_of(put(keys, GALOIS_BYTES + PLACES, words(2))) is KeyFault.PARAMETERS
    assert key_fault_of(put(keys, GALOIS_BYTES + PLACES + 8, words(2))) is KeyFault.PARAMETERS


def places(*steps: int) -> list[int]:
    return sorted((pow(3, step, 2 * N) - 1) // 2 for step in steps)


def galois_keys(keys: bytes, at: list[int], part_count: int = 3) -> bytes:
    """Galois keys at these places, with the first key's parts, then the relinearization keys."""
    parts = keys[FIRST_KEY : FIRST_KEY + part_count * PART_BYTES]
    body = keys[16:PLACES] + words(N)
    body += b"".join(words(part_count) + parts if place in at else words(0) for place in range(N))
    return HEADER.pack(0xA15E, 16, 3, 5, 0, 0, 16 + len(body)) + body + keys[GALOIS_BYTES:]


def test_the_rotations_are_those_of_the_layout(keys: bytes) -> None:
    ei_format.read_evaluation_keys(galois_keys(keys, places(*ei_format.ROTATIONS)))
    without_last = places(*ei_format.ROTATIONS[:-1])
    assert key_fault_of(galois_keys(keys, without_last)) is KeyFault.PARAMETERS
    assert key_fault_of(galois_keys(keys, [*without_last, 5])) is KeyFault.PARAMETERS
    assert key_fault_of(galois_keys(keys, [])) is KeyFault.PARAMETERS
    assert key_fault_of(galois_keys(keys, places(*ei_format.ROTATIONS), part_count=2)) is KeyFault.PARAMETERS
    assert key_fault_of(galois_keys(keys, [*places(*ei_format.ROTATIONS), 5])) is KeyFault.FORMAT  # longer


@pytest.mark.parametrize("prime", range(4))
def test_a_coefficient_of_a_key_is_below_its_prime(keys: bytes, prime: int) -> None:
    too_large = words(EI_PARAMETER_SET.primes[prime])
    first_part, last_part = FIRST_KEY, GALOIS_BYTES + RELINEARIZATION_BYTES - PART_BYTES
    for part in (first_part, last_part):
        at = part + RESIDUES + 8 * (prime * N + N - 1)
        assert key_fault_of(put(keys, at, too_large)) is KeyFault.COEFFICIENT


def test_keys_of_other_lengths(ei_user: EIUser, keys: bytes, ciphertext: bytes) -> None:
    data = ei_user.evaluation_keys
    galois_end = HEADER.unpack_from(data)[-1]
    wrong = {
        "nothing": b"",
        "Galois keys only": data[:galois_end],
        "relinearization keys only": data[galois_end:],
        "other order": data[galois_end:] + data[:galois_end],
        "relinearization keys twice": data + data[galois_end:],
        "a byte behind": data + b"\0",
        "a byte less": data[:-1],
        "a byte less, uncompressed": keys[:-1],
        "a ciphertext": ciphertext,
        "random": random.Random(3).randbytes(100_000),
        "random behind a header": data[:16] + random.Random(3).randbytes(galois_end),
        "no whole count": HEADER.pack(0xA15E, 16, 3, 5, 0, 0, PLACES + 4) + keys[16 : PLACES + 4],
        "no whole place": HEADER.pack(0xA15E, 16, 3, 5, 0, 0, PLACES + 12) + keys[16 : PLACES + 12],
        "no whole key": HEADER.pack(0xA15E, 16, 3, 5, 0, 0, FIRST_KEY + 50) + keys[16 : FIRST_KEY + 50],
    }  # fmt: skip
    found = {name: key_fault_of(value) for name, value in wrong.items()}
    expected = dict.fromkeys(wrong, KeyFault.FORMAT)
    # Small enough to be looked into: these are of one place, of another level.
    expected["relinearization keys only"] = expected["other order"] = expected["a ciphertext"] = KeyFault.PARAMETERS
    assert found == expected


def test_mutated_keys_load_or_are_refused(ei_user: EIUser, keys: bytes) -> None:
    chance, refused = random.Random(4), 0
    for _ in range(60):
        try:
            parts = ei_format.read_evaluation_keys(mutated(chance.choice([ei_user.evaluation_keys, keys]), chance))
        except MalformedKeyError:
            refused += 1
        else:
            assert _seal.load_galois_keys(CONTEXT, parts.galois).size() == len(ei_format.ROTATIONS)
            CONTEXT.from_relin_str(parts.relinearization)
    assert 30 < refused < 60


# Replies that are refused


def test_a_reply_that_is_none(ciphertext: bytes, plain: bytes) -> None:
    value = loaded(ciphertext)
    EVALUATOR.mod_switch_to_next_inplace(value)
    reply = reply_of(value)
    wrong = [put(reply, at, bytes([reply[at] ^ 1])) for at in range(SCALE)]
    wrong += [put(reply, at, bytes([reply[at] ^ 1])) for at in range(INNER, RESIDUES)]
    wrong += [put(reply, SCALE, struct.pack("<d", scale)) for scale in (0, -1, float("inf"), float("nan"))]
    wrong += [put(reply, RESIDUES + 8 * at, words(2**63)) for at in (0, 2 * N, 4 * N - 1)]
    wrong += [reply[:-1], reply + b"\0", reply[:40], b"", plain, ciphertext, _seal.ciphertext_bytes(value)]
    wrong += [put(reply, PARMS_ID, _seal.key_parms_id(CONTEXT))]
    for data in wrong:
        with pytest.raises(ReplyError):
            ei_format.check_reply(data)
