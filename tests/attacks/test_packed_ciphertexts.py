"""Hostile packed ciphertexts: each fails alone and says why, and SEAL sees none of them.

What a packed ciphertext becomes is a seeded one. So whoever chooses its bytes chooses nothing that
could not be chosen in a seeded one.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.seeded_encryptor import PackedEncryptor
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.key_record import KeyKind
from sealserve.secret_key_access import TOKEN
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.raw import Message, RawClient, assert_error, chunk
from tests.support.serving import linear, registered_keys, running_server, served

WEIGHTS = np.random.default_rng(5).normal(size=(2, 9))
ROW = np.arange(9) / 9
PARAMETER_SET = LAYOUTS["row"].private_parameter_sets[0]
N, BITS = 4096, 46
FIRST_PRIME, SECOND_PRIME = PARAMETER_SET.data_primes
LENGTH, PARAMETERS, COEFFICIENT = CiphertextFault.LENGTH, CiphertextFault.PARAMETERS, CiphertextFault.COEFFICIENT


def with_residue(data: bytes, place: int, residue: int) -> bytes:
    """Replace one residue."""
    whole, at = int.from_bytes(data[96:], "little"), place * BITS
    whole += (residue - (whole >> at & (1 << BITS) - 1)) << at
    return data[:96] + whole.to_bytes(len(data) - 96, "little")


def of_another_modulus(_: bytes) -> bytes:
    """A packed ciphertext of another plaintext modulus, under a key of its own."""
    parameters = EncryptionParameters(PARAMETER_SET, 1 << 9)
    form = CiphertextFormat(PARAMETER_SET, _seal.fresh_parms_id(_seal.context(parameters)))
    return form.pack_bits(np.ones((2, N), np.uint64), os.urandom(64))


FAULTS: dict[str, tuple[CiphertextFault, Callable[[bytes], bytes]]] = {
    "truncated by a byte": (LENGTH, lambda data: data[:-1]),
    "a byte too long": (LENGTH, lambda data: data + b"\0"),
    "without its seed": (LENGTH, lambda data: data[:32] + data[96:]),
    "of a seed of 63 bytes": (LENGTH, lambda data: data[:95] + data[96:]),
    "of a seed of 65 bytes": (LENGTH, lambda data: data[:96] + b"\0" + data[96:]),
    "without its parms_id": (LENGTH, lambda data: data[32:]),
    "its residues of a bit less": (LENGTH, lambda data: data[: 96 + 2 * N * (BITS - 1) // 8]),
    "its residues of a bit more": (LENGTH, lambda data: data + bytes(2 * N // 8)),
    "of one polynomial modulus": (LENGTH, lambda data: data[: 96 + N * BITS // 8]),
    "of another plaintext modulus": (PARAMETERS, of_another_modulus),
    "of no parameters": (PARAMETERS, lambda data: bytes(32) + data[32:]),
    "random, of its length": (PARAMETERS, lambda data: os.urandom(len(data))),
    "the first residue at its prime": (COEFFICIENT, lambda data: with_residue(data, 0, FIRST_PRIME)),
    "the last of the first prime": (COEFFICIENT, lambda data: with_residue(data, N - 1, FIRST_PRIME)),
    "the last residue at its prime": (COEFFICIENT, lambda data: with_residue(data, 2 * N - 1, SECOND_PRIME)),
    "a residue of 46 ones": (COEFFICIENT, lambda data: with_residue(data, 1234, (1 << BITS) - 1)),
    "all residues of 46 ones": (COEFFICIENT, lambda data: data[:96] + b"\xff" * (len(data) - 96)),
}


class Attacker:
    """A client that sends packed ciphertexts of its own making, and its registered key."""

    def __init__(self, address: str, layout: str) -> None:
        self.raw = RawClient(address, layout=LAYOUTS[layout])
        codec = self.raw.codec
        key = codec.secret_key.export(TOKEN)
        self.encryptor = PackedEncryptor(codec.offer.parameters, key)
        with KeyRegistry(address) as registry:
            name = codec.offer.parameters.parameter_set.name
            registry.register(codec.public_key, kind=KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set=name)

    def item(self, item_id: int, spoil: Callable[[bytes], bytes] | None = None, index: int = 0) -> Message:
        """A packed item, one of whose ciphertexts may be spoilt."""
        codec = self.raw.codec
        item = codec.encrypt(codec.quantize(ROW[None]).integers)
        plaintexts = codec._packing.pack_rows(codec.quantize(ROW[None]).integers)
        ciphertexts = [self.encryptor.encrypt(plaintext) for plaintext in plaintexts]
        if spoil is not None:
            ciphertexts[index] = spoil(ciphertexts[index])
        return Message(item_id=item_id, header=item.header_message, chunk=chunk(0, *ciphertexts))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    keys = registered_keys()
    models = ModelRegistry([served("private", linear(WEIGHTS), keys=keys, hiding_bits=40)])
    with running_server(models, keys=keys) as address:
        yield address


@pytest.fixture(scope="module", params=["row", "column"])
def attacker(address: str, request: pytest.FixtureRequest) -> Iterator[Attacker]:
    attacker = Attacker(address, request.param)
    with attacker.raw:
        yield attacker


def assert_right(answer: object) -> None:
    assert isinstance(answer, np.ndarray)
    np.testing.assert_allclose(answer[0], WEIGHTS @ ROW, atol=0.05)


@pytest.mark.parametrize("name", FAULTS)
def test_a_malformed_one_fails_alone(attacker: Attacker, name: str) -> None:
    fault, spoil = FAULTS[name]
    index = attacker.raw.codec.offer.ciphertexts_per_item - 1
    answers = attacker.raw.stream([attacker.item(1), attacker.item(2, spoil, index), attacker.item(3)])
    assert_right(answers[1])
    assert_error(answers[2], MalformedCiphertextError(fault, index))
    assert_right(answers[3])


def test_a_full_and_a_seeded_item_are_scored_beside(attacker: Attacker) -> None:
    """The form of one item says nothing about the next."""
    raw = attacker.raw
    answers = raw.stream([*raw.messages(1, ROW), attacker.item(2), *raw.messages(3, ROW)])
    for item_id in (1, 2, 3):
        assert_right(answers[item_id])


@settings(deadline=None, max_examples=30)
@given(changes=st.dictionaries(st.integers(0, 96 + 2 * N * BITS // 8 - 1), st.integers(0, 255), max_size=20))
def test_what_passes_is_a_seeded_ciphertext_that_seal_takes(changes: dict[int, int]) -> None:
    """Changes of any bytes are refused for their reason, or make what SEAL itself reads."""
    parameters = EncryptionParameters(PARAMETER_SET, 1 << 20)
    context = _seal.context(parameters)
    form = CiphertextFormat(PARAMETER_SET, _seal.fresh_parms_id(context))
    good = form.pack_bits(np.zeros((2, N), np.uint64), bytes(64))
    changed = bytearray(good)
    for at, value in changes.items():
        changed[at] = value
    whole = int.from_bytes(changed[96:], "little")
    touched = {8 * (at - 96) // BITS for at in changes if at >= 96}
    residues = {place: whole >> place * BITS & (1 << BITS) - 1 for each in touched for place in (each, each + 1)}
    if changed[:32] != good[:32]:
        expected = PARAMETERS
    elif any(residue >= PARAMETER_SET.data_primes[place // N] for place, residue in residues.items() if place < 2 * N):
        expected = COEFFICIENT
    else:
        seeded = form.checked(bytes(changed))
        assert form.checked(seeded) == seeded
        c0, _ = _seal.ciphertext_residues(_seal.load_ciphertext(context, seeded), form.shape)
        assert {place: int(c0.ravel()[place]) for place in residues if place < 2 * N}.items() <= residues.items()
        return
    with pytest.raises(MalformedCiphertextError) as caught:
        form.checked(bytes(changed))
    assert caught.value.reason is expected
