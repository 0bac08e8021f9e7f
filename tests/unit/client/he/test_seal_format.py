"""SEAL's bytes, read and checked: against the bytes that SEAL itself writes, loads and refuses."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat, pack_plaintext, plaintext_coefficients, restamp
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support.seeded import seeded
from tests.support.serving import linear, served

RANDOM = np.random.default_rng(4)
HEADER = 16
PARMS_ID, MEMBERS, ARRAY, COUNT, RESIDUES = 16, 48, 89, 105, 113  # where each part begins
SEED_INFO = 81  # bytes behind the residues of a seeded ciphertext
MINOR_VERSION = 4  # within a header


def parameters_of(parameter_set: ParameterSet) -> EncryptionParameters:
    return EncryptionParameters(parameter_set, 1 << 20)


def format_of(parameters: EncryptionParameters) -> CiphertextFormat:
    return CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))


def ciphertext_of(parameters: EncryptionParameters, key: bytes) -> bytes:
    """A fresh ciphertext of random coefficients."""
    coefficients = RANDOM.integers(parameters.plain_modulus, size=parameters.parameter_set.poly_modulus_degree)
    return Encryptor(parameters, key).encrypt(coefficients.astype(np.uint64))


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def fault_of(form: CiphertextFormat, data: bytes) -> CiphertextFault | None:
    """What the check finds, None if nothing."""
    try:
        form.checked(data)
    except MalformedCiphertextError as error:
        return error.reason
    return None


KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in LAYOUTS["row"].open_parameter_sets}
CODEC = RowCodec(served("one prime", linear(RANDOM.normal(size=(2, 8)))).model)
ROW = RANDOM.random((1, 8))
FORMAT = format_of(CODEC.offer.parameters)
N, (PRIME,) = (
    CODEC.offer.parameters.parameter_set.poly_modulus_degree,
    CODEC.offer.parameters.parameter_set.primes,
)
(FULL,) = CODEC.encrypt(CODEC.quantize(ROW).integers).ciphertexts
SEEDED = seeded(CODEC, FULL)
GOOD = {"full": FULL, "seeded": SEEDED}
FORMS = pytest.mark.parametrize("form", GOOD)


# The check


@pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)
def test_what_seal_writes_is_well_formed(parameter_set: ParameterSet) -> None:
    parameters = parameters_of(parameter_set)
    form = format_of(parameters)
    data = ciphertext_of(parameters, KEYS[parameter_set])
    assert len(data) == form.full_bytes
    assert fault_of(form, data) is None


def test_seeded_ciphertexts_are_well_formed_and_hold_the_same_plaintext() -> None:
    context = _seal.context(CODEC.offer.parameters)
    key = restamp(CODEC.secret_key.export(TOKEN), _seal.key_parms_id(context))
    decryptor = _seal.Decryptor(context, _seal.load_secret_key(context, key))
    assert len(SEEDED) == FORMAT.seeded_bytes < 0.51 * len(FULL)
    assert fault_of(FORMAT, SEEDED) is None
    full, expanded = (
        _seal.plaintext_bytes(decryptor.decrypt(_seal.load_ciphertext(context, data))) for data in (FULL, SEEDED)
    )
    assert full == expanded


@FORMS
def test_a_change_of_any_byte_before_the_residues_is_found(form: str) -> None:
    good = GOOD[form]
    for at in set(range(RESIDUES)) - {MINOR_VERSION, ARRAY + MINOR_VERSION}:
        expected = CiphertextFault.HEADER
        if PARMS_ID <= at < MEMBERS:
            expected = CiphertextFault.PARAMETERS
        elif MEMBERS <= at < ARRAY:
            expected = CiphertextFault.FORM
        for change in range(1, 256):
            assert fault_of(FORMAT, patched(good, at, bytes([good[at] ^ change]))) is expected


@FORMS
@pytest.mark.parametrize("at", [MINOR_VERSION, ARRAY + MINOR_VERSION], ids=["outer", "inner"])
def test_any_minor_version_passes_and_means_the_same_if_seal_can_read_it(form: str, at: int) -> None:
    context = _seal.context(CODEC.offer.parameters)
    expected = _seal.ciphertext_bytes(_seal.load_ciphertext(context, GOOD[form]))
    for minor in (0, 1, 2, 3, 4, 5, 255):
        changed = patched(GOOD[form], at, bytes([minor]))
        assert fault_of(FORMAT, changed) is None
        if minor <= GOOD[form][MINOR_VERSION]:
            assert _seal.ciphertext_bytes(_seal.load_ciphertext(context, changed)) == expected
        else:
            with pytest.raises(_seal.SealError, match="incompatible version"):
                _seal.load_ciphertext(context, changed)


def test_a_change_before_the_seed_is_found() -> None:
    begin = len(SEEDED) - SEED_INFO
    for at in range(HEADER + 1):
        for value in set(range(256)) - {SEEDED[begin + at]}:
            is_other_generator = at == HEADER and value in (1, 2)
            expected = None if at == MINOR_VERSION or is_other_generator else CiphertextFault.HEADER
            assert fault_of(FORMAT, patched(SEEDED, begin + at, bytes([value]))) is expected


@FORMS
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_another_length_is_found_before_anything_else(form: str, data: st.DataObject) -> None:
    good = GOOD[form]
    length = data.draw(st.integers(0, 2 * len(FULL)).filter(lambda length: length not in (len(FULL), len(SEEDED))))
    assert fault_of(FORMAT, (good + bytes(2 * len(FULL)))[:length]) is CiphertextFault.LENGTH


def test_bytes_of_the_right_length_and_nothing_else() -> None:
    for length in (FORMAT.full_bytes, FORMAT.seeded_bytes):
        assert fault_of(FORMAT, RANDOM.bytes(length)) is CiphertextFault.HEADER
        assert fault_of(FORMAT, bytes(length)) is CiphertextFault.HEADER


def test_a_ciphertext_of_another_plaintext_modulus() -> None:
    parameters = EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], CODEC.offer.parameters.plain_modulus * 2)
    data = ciphertext_of(parameters, KEYS[LAYOUTS["row"].open_parameter_sets[0]])
    assert fault_of(format_of(parameters), data) is None
    assert fault_of(FORMAT, data) is CiphertextFault.PARAMETERS


def test_what_seal_writes_in_ntt_form() -> None:
    context = _seal.context(CODEC.offer.parameters)
    ciphertext = _seal.load_ciphertext(context, FULL)
    _seal.Evaluator(context).transform_to_ntt_inplace(ciphertext)
    assert fault_of(FORMAT, _seal.ciphertext_bytes(ciphertext)) is CiphertextFault.FORM


@FORMS
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_residue_at_its_prime_is_found_wherever_it_is(form: str, data: st.DataObject) -> None:
    good = GOOD[form]
    place = data.draw(st.integers(0, (2 if form == "full" else 1) * N - 1))
    residue = data.draw(st.sampled_from([PRIME, PRIME + 1, 2**63, 2**64 - 1]))
    at = RESIDUES + 8 * place
    assert fault_of(FORMAT, patched(good, at, struct.pack("<Q", residue))) is CiphertextFault.COEFFICIENT
    assert fault_of(FORMAT, patched(good, at, struct.pack("<Q", PRIME - 1))) is None


def test_each_residue_has_a_prime_of_its_own() -> None:
    parameters = parameters_of(LAYOUTS["row"].open_parameter_sets[-1])
    form, data = format_of(parameters), ciphertext_of(parameters, KEYS[LAYOUTS["row"].open_parameter_sets[-1]])
    degree, (least, greatest) = parameters.parameter_set.poly_modulus_degree, parameters.parameter_set.data_primes
    assert least < greatest
    for block, own in enumerate([least, greatest, least, greatest]):  # c0, then c1
        for place in (block * degree, (block + 1) * degree - 1):
            at = RESIDUES + 8 * place
            assert fault_of(form, patched(data, at, struct.pack("<Q", own))) is CiphertextFault.COEFFICIENT
            assert fault_of(form, patched(data, at, struct.pack("<Q", own - 1))) is None


def test_a_ciphertext_that_hides_nothing() -> None:
    second = RESIDUES + 8 * N
    assert fault_of(FORMAT, patched(FULL, second, bytes(8 * N))) is CiphertextFault.TRANSPARENT
    assert fault_of(FORMAT, patched(FULL, second, bytes(8 * N - 8) + b"\1" + bytes(7))) is None
    assert (
        fault_of(FORMAT, patched(FULL, RESIDUES, bytes(8 * N))) is None
    )  # an empty first polynomial is as good as any


# Residues


@pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)
def test_residues_and_pack_are_inverse(parameter_set: ParameterSet) -> None:
    parameters = parameters_of(parameter_set)
    form, data = format_of(parameters), ciphertext_of(parameters, KEYS[parameter_set])
    residues = form.residues(data)
    primes = parameter_set.data_primes
    assert residues.shape == (2, len(primes), parameter_set.poly_modulus_degree)
    assert not residues.flags.writeable
    for index, prime in enumerate(primes):
        assert prime // 2 < residues[:, index].max() < prime
    assert form.pack(residues[0], residues[1].tobytes()) == data


def test_pack_takes_a_strided_polynomial() -> None:
    residues = FORMAT.residues(FULL)
    strided = np.repeat(residues[0], 3, axis=1)[:, ::3]
    assert not strided.flags.c_contiguous
    assert FORMAT.pack(strided, residues[1].tobytes()) == FULL


# Plaintexts


def coefficients_below(t: int, degree: int) -> st.SearchStrategy[NDArray[np.uint64]]:
    """Coefficients, often few that are not zero: SEAL drops leading zeros."""
    return hnp.arrays(np.uint64, degree, elements=st.integers(0, t - 1), fill=st.just(0))


@settings(deadline=None, max_examples=25)
@given(coefficients=coefficients_below(1 << 20, LAYOUTS["row"].open_parameter_sets[0].poly_modulus_degree))
def test_plaintexts_pass_through_seal_unchanged(coefficients: NDArray[np.uint64]) -> None:
    context = _seal.context(parameters_of(LAYOUTS["row"].open_parameter_sets[0]))
    loaded = _seal.load_plaintext(context, pack_plaintext(coefficients))
    assert np.array_equal(plaintext_coefficients(_seal.plaintext_bytes(loaded), coefficients.size), coefficients)


def decrypted(parameters: EncryptionParameters, ciphertext: bytes) -> bytes:
    """What SEAL decrypts, as it writes it: without leading zeros."""
    context = _seal.context(parameters)
    key = restamp(KEYS[parameters.parameter_set], _seal.key_parms_id(context))
    decryptor = _seal.Decryptor(context, _seal.load_secret_key(context, key))
    return _seal.plaintext_bytes(decryptor.decrypt(_seal.load_ciphertext(context, ciphertext)))


def test_columns_of_an_array_are_packed_as_they_read() -> None:
    table = RANDOM.integers(1 << 20, size=(N, 3)).astype(np.uint64)
    for column in (table[:, 1], table[::-1, 2], np.asfortranarray(table)[:, 0]):
        assert pack_plaintext(column) == pack_plaintext(np.array(column.tolist(), np.uint64))


@pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)
@pytest.mark.parametrize("nonzero", [[], [0], [0, 1], [5], [-1], [0, -1]], ids=repr)
def test_zeros_that_seal_drops_come_back(parameter_set: ParameterSet, nonzero: list[int]) -> None:
    parameters = parameters_of(parameter_set)
    coefficients = np.zeros(parameter_set.poly_modulus_degree, np.uint64)
    coefficients[nonzero] = parameters.plain_modulus - 1
    data = decrypted(parameters, Encryptor(parameters, KEYS[parameter_set]).encrypt(coefficients))
    assert np.array_equal(plaintext_coefficients(data, coefficients.size), coefficients)


def test_a_coefficient_at_the_plaintext_modulus_is_refused() -> None:
    parameters = parameters_of(LAYOUTS["row"].open_parameter_sets[0])
    coefficients = np.full(N, parameters.plain_modulus, np.uint64)
    with pytest.raises(_seal.SealError):
        _seal.load_plaintext(_seal.context(parameters), pack_plaintext(coefficients))


# Keys


def test_a_restamped_key_is_the_same_key() -> None:
    key = KEYS[LAYOUTS["row"].open_parameter_sets[0]]
    parms_id = RANDOM.bytes(32)
    stamped = restamp(key, parms_id)
    assert stamped == patched(key, PARMS_ID, parms_id)
    assert stamped != key
    assert restamp(stamped, key[PARMS_ID:MEMBERS]) == key


def test_seal_loads_a_key_only_under_its_own_stamp() -> None:
    key, context = (
        KEYS[LAYOUTS["row"].open_parameter_sets[0]],
        _seal.context(parameters_of(LAYOUTS["row"].open_parameter_sets[0])),
    )
    with pytest.raises(_seal.SealError):
        _seal.load_secret_key(context, key)
    loaded = _seal.load_secret_key(context, restamp(key, _seal.key_parms_id(context)))
    assert loaded.to_string()[MEMBERS:] == key[MEMBERS:]
