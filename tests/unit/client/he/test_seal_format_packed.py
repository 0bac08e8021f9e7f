"""Packed ciphertexts: the bits that the protos describe, and the checks before SEAL sees anything.

All of it is compared with Python's integers.
"""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import RINGS, EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat

RANDOM = np.random.default_rng(19)
RESIDUES = 32 + 64  # where they begin
SETS = {name: ParameterSet(name, *ring) for name, ring in RINGS.items()}
EVERY_RING = pytest.mark.parametrize("ring", SETS)


def format_of(parameter_set: ParameterSet) -> CiphertextFormat:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    return CiphertextFormat(parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))


FORMATS = {name: format_of(parameter_set) for name, parameter_set in SETS.items()}
FORMAT, PRIMES = FORMATS["4096-92"], SETS["4096-92"].data_primes
N, BITS = 4096, 46
PARMS_ID, SEED = RANDOM.bytes(32), RANDOM.bytes(64)
GOOD_C0 = np.stack([RANDOM.integers(prime, size=N).astype(np.uint64) for prime in PRIMES])
GOOD = FORMAT.pack_bits(GOOD_C0, SEED)


def written(residues: list[int], bits: int) -> bytes:
    """Residues as the comment of Chunk says."""
    width, joined = bits * 8, bytearray()
    for start in range(0, len(residues), 64):  # in parts that end with a whole byte, for speed
        part = sum(residue << index * bits for index, residue in enumerate(residues[start : start + 64]))
        joined += part.to_bytes(width, "little")
    return bytes(joined)


def patched(data: bytes, place: int, residue: int) -> bytes:
    """Replace one residue of a packed ciphertext."""
    whole, at = int.from_bytes(data[RESIDUES:], "little"), place * BITS
    whole += (residue - (whole >> at & (1 << BITS) - 1)) << at
    return data[:RESIDUES] + whole.to_bytes(len(data) - RESIDUES, "little")


def fault_of(data: bytes, form: CiphertextFormat = FORMAT) -> CiphertextFault | None:
    try:
        form.checked(data)
    except MalformedCiphertextError as error:
        return error.reason
    return None


def edges(prime: int) -> st.SearchStrategy[int]:
    return st.sampled_from([0, 1, prime - 1, prime // 2]) | st.integers(0, prime - 1)


# What is packed


def one_prime(bits: int) -> ParameterSet:
    """A set whose only prime has so many bits; no prime, but the format takes any."""
    return ParameterSet("one", 2048, ((1 << bits) - 4095,))


PACKING = st.sampled_from([SETS["4096-92"], *map(one_prime, range(14, 52))])


@settings(deadline=None, max_examples=20)
@given(parameter_set=PACKING, data=st.data())
def test_the_bits_are_those_that_the_protos_describe(parameter_set: ParameterSet, data: st.DataObject) -> None:
    form, degree, primes = CiphertextFormat(parameter_set, PARMS_ID), parameter_set.poly_modulus_degree, []
    for prime in parameter_set.data_primes:
        period = data.draw(st.lists(edges(prime), min_size=3, max_size=29), f"modulo {prime}")
        primes.append(list(itertools.islice(itertools.cycle(period), degree)))
    c0 = np.array(primes, np.uint64)
    packed = form.pack_bits(c0, SEED)
    assert packed == PARMS_ID + SEED + written(c0.ravel().tolist(), max(parameter_set.data_primes).bit_length())
    assert len(packed) == form.packed_bytes
    assert form.checked(packed) == form.pack_seeded(c0, SEED)


def test_what_is_unpacked_is_what_seal_takes() -> None:
    """Up to the second polynomial, which is the expansion of the seed in either form."""
    context = _seal.context(EncryptionParameters(SETS["4096-92"], 1 << 20))
    packed, seeded = (
        _seal.ciphertext_bytes(_seal.load_ciphertext(context, data))
        for data in (FORMAT.checked(GOOD), FORMAT.pack_seeded(GOOD_C0, SEED))
    )
    assert packed == seeded
    np.testing.assert_array_equal(FORMAT.residues(packed)[0], GOOD_C0)


def test_residues_are_packed_as_they_read_in_any_memory() -> None:
    """SEAL's bytes have them at an odd place."""
    unaligned = np.frombuffer(b"\0" + GOOD_C0.tobytes(), np.uint64, offset=1).reshape(GOOD_C0.shape)
    strided = np.repeat(GOOD_C0, 3, axis=1)[:, ::3]
    assert FORMAT.pack_bits(unaligned, SEED) == FORMAT.pack_bits(strided, SEED) == GOOD


def test_it_is_taken_where_it_saves_a_fifth() -> None:
    assert [ring for ring, form in FORMATS.items() if form.packs] == ["2048-44", "4096-92"]
    for form in FORMATS.values():
        assert form.packs == (form.packed_bytes <= 0.8 * form.seeded_bytes)
    assert 0.71 < FORMAT.packed_bytes / FORMAT.seeded_bytes < 0.72
    assert [bits for bits in range(14, 55) if CiphertextFormat(one_prime(bits), PARMS_ID).packs] == [*range(14, 52)]


@EVERY_RING
def test_forms_are_told_apart_by_their_lengths(ring: str) -> None:
    form = FORMATS[ring]
    assert form.packed_bytes < form.seeded_bytes < form.full_bytes


def test_the_longest_items_that_calls_of_one_message_may_have() -> None:
    """More than a third of the bytes of a full ciphertext, as `unary_engines` counts on."""
    for layout in LAYOUTS.values():
        for parameter_set in layout.open_parameter_sets + layout.private_parameter_sets:
            form = format_of(parameter_set)
            assert 3 * form.packed_bytes > form.full_bytes


# What is refused


@settings(deadline=None, max_examples=20)
@given(place=st.integers(0, 2 * N - 1), data=st.data())
def test_a_residue_at_its_prime_is_found_wherever_it_is(place: int, data: st.DataObject) -> None:
    prime = PRIMES[place // N]
    residue = data.draw(st.sampled_from([prime, prime + 1, (1 << BITS) - 1]))
    assert fault_of(patched(GOOD, place, residue)) is CiphertextFault.COEFFICIENT
    assert fault_of(patched(GOOD, place, prime - 1)) is None


def test_each_residue_has_a_prime_of_its_own() -> None:
    least, greatest = PRIMES
    assert least < greatest < 1 << BITS
    for place, own in ((0, least), (N - 1, least), (N, greatest), (2 * N - 1, greatest)):
        assert fault_of(patched(GOOD, place, own)) is CiphertextFault.COEFFICIENT
        assert fault_of(patched(GOOD, place, own - 1)) is None
    assert fault_of(patched(GOOD, N, least)) is None


def test_another_parms_id_is_found_before_the_residues() -> None:
    for at in range(32):
        for change in (1, 0x80, 0xFF):
            wrong = bytes([GOOD[at] ^ change])
            assert fault_of(GOOD[:at] + wrong + GOOD[at + 1 :]) is CiphertextFault.PARAMETERS
    ones = b"\xff" * (len(GOOD) - 32)
    assert fault_of(bytes(32) + ones) is CiphertextFault.PARAMETERS
    assert fault_of(GOOD[:32] + ones) is CiphertextFault.COEFFICIENT


def test_any_seed_is_one() -> None:
    for seed in (bytes(64), b"\xff" * 64):
        assert FORMAT.checked(GOOD[:32] + seed + GOOD[RESIDUES:]) == FORMAT.pack_seeded(GOOD_C0, seed)


@settings(deadline=None, max_examples=30)
@given(length=st.integers(0, 2 * len(GOOD)) | st.sampled_from([len(GOOD) - 1, len(GOOD) + 1, len(GOOD) - 64, 96]))
def test_another_length_is_found_before_anything_else(length: int) -> None:
    assume(length not in {FORMAT.packed_bytes, FORMAT.seeded_bytes, FORMAT.full_bytes})
    assert fault_of((GOOD + bytes(len(GOOD)))[:length]) is CiphertextFault.LENGTH


@EVERY_RING
def test_where_it_saves_less_it_is_refused_by_its_length(ring: str) -> None:
    form = FORMATS[ring]
    parms_id = _seal.fresh_parms_id(_seal.context(EncryptionParameters(SETS[ring], 1 << 20)))
    expected = None if form.packs else CiphertextFault.LENGTH
    assert fault_of(parms_id + bytes(form.packed_bytes - 32), form) is expected
