"""The pair (c0, c1) that a seeded ciphertext is made from outlives no call.

Beside the seeded ciphertext it would give the key.
"""

import errno
import logging
import os
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support.seal_spy import SealSpy, ciphertext_bytes, seal_spy
from tests.support.spied_pairs import assert_nothing_is_left, assert_secret, contents, frames_below, reachable

SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in LAYOUTS["row"].open_parameter_sets}
SETS = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)
STEPS = [
    *("load_ciphertext", "encrypt_symmetric", "sub_inplace", "transform_to_ntt_inplace", "ciphertext_bytes"),
    *("load_ciphertext", "decrypt", "add_plain", "transform_from_ntt_inplace", "ciphertext_bytes"),
]
spy = pytest.fixture(seal_spy)


def encryptor_of(spy: SealSpy, parameter_set: ParameterSet) -> SeededEncryptor:
    return spy.encryptor(EncryptionParameters(parameter_set, 1 << 20), KEYS[parameter_set])


def plaintext_of(parameter_set: ParameterSet) -> NDArray[np.uint64]:
    return np.arange(parameter_set.poly_modulus_degree, dtype=np.uint64)


@SETS
def test_the_pair_is_in_nothing_that_is_returned_or_kept(parameter_set: ParameterSet, spy: SealSpy) -> None:
    encryptor = encryptor_of(spy, parameter_set)
    before = {name: (id(value), contents(value)) for name, value in vars(encryptor).items()}
    ciphertext = encryptor.encrypt(plaintext_of(parameter_set))
    assert spy.steps == STEPS
    assert_nothing_is_left(spy)
    assert_secret(spy, [ciphertext])
    assert {name: (id(value), contents(value)) for name, value in vars(encryptor).items()} == before
    everything = list(reachable(encryptor))
    assert any(isinstance(value, _seal.Ciphertext) for value in everything)
    assert_secret(spy, everything)


def test_the_pair_would_be_found(spy: SealSpy) -> None:
    """It would be found anywhere: the other tests see what they look for."""
    encryptor: Any = encryptor_of(spy, SMALLEST)
    encryptor.encrypt(plaintext_of(SMALLEST))
    (pair,), c1_at = spy.pairs, -8 * SMALLEST.poly_modulus_degree
    difference = bytearray(spy.differences[0])
    array, part, between = np.frombuffer(pair[-800:], np.uint64), pair[c1_at : c1_at + 16], b"x" + pair[-160:] + b"xyz"
    hidden = [[{"a": pair}], SimpleNamespace(kept=(pair,)), array, part, between, difference]
    for value in hidden:
        encryptor.kept = value
        with pytest.raises(AssertionError):
            assert_secret(spy, reachable(encryptor))

    assert_nothing_is_left(spy)
    context = _seal.context(EncryptionParameters(SMALLEST, 1 << 20))
    kept = _seal.load_ciphertext(context, bytes(bytearray(pair)))
    with pytest.raises(AssertionError):
        assert_nothing_is_left(spy)
    del kept
    assert_nothing_is_left(spy)
    kept_bytes = spy.data[0]
    with pytest.raises(AssertionError):
        assert_nothing_is_left(spy)
    del kept_bytes


def test_the_pair_gives_the_key(spy: SealSpy) -> None:
    """The reason: s = (c0' - c0) / (c1 - c1') in NTT form, the form in which SEAL writes keys."""
    parameters, (prime,) = EncryptionParameters(SMALLEST, 1 << 20), SMALLEST.data_primes
    context = _seal.context(parameters)
    form = CiphertextFormat(SMALLEST, _seal.fresh_parms_id(context))
    moved = _seal.load_ciphertext(context, encryptor_of(spy, SMALLEST).encrypt(plaintext_of(SMALLEST)))
    c0, difference = form.residues(spy.differences[0])[:, 0].astype(object)
    _seal.Evaluator(context).transform_to_ntt_inplace(moved)
    new_c0 = form.residues(ciphertext_bytes(moved))[0, 0].astype(object)
    inverses = np.array([pow(int(residue), -1, prime) for residue in difference], object)
    secret = ((new_c0 - c0) * inverses % prime).astype(np.uint64)
    assert KEYS[SMALLEST].endswith(secret.tobytes())


def test_nothing_is_logged_or_printed(
    spy: SealSpy, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    encryptor = encryptor_of(spy, SMALLEST)
    with caplog.at_level(logging.DEBUG):
        encryptor.encrypt(plaintext_of(SMALLEST))
    assert spy.steps == STEPS
    assert not caplog.records
    assert tuple(capfd.readouterr()) == ("", "")


# Failures


@SETS
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{index}-{name}" for index, name in enumerate(STEPS)])
@pytest.mark.parametrize("failure", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(
    parameter_set: ParameterSet, step: int, failure: type[BaseException], spy: SealSpy
) -> None:
    encryptor = encryptor_of(spy, parameter_set)
    spy.failing_step, spy.failure = step, failure("of the test")
    with pytest.raises(_seal.SealError if failure is RuntimeError else failure, match="of the test") as caught:
        encryptor.encrypt(plaintext_of(parameter_set))
    assert spy.steps == STEPS[: step + 1]
    assert_nothing_is_left(spy)  # though the error is still there
    frames = list(frames_below(caught.value, __file__))
    assert {"encrypt", "_encrypt", "step"} <= {frame.f_code.co_name for frame in frames}
    if spy.pairs:
        assert_secret(spy, (value for frame in frames for value in reachable(frame.f_locals)))

    spy.failing_step = None
    spy.forget()
    assert encryptor.encrypt(plaintext_of(parameter_set))
    assert spy.steps == STEPS


def test_a_failure_of_seal_itself_leaves_nothing_behind(spy: SealSpy, monkeypatch: pytest.MonkeyPatch) -> None:
    encryptor = encryptor_of(spy, SMALLEST)
    monkeypatch.setattr(encryptor, "_twin_parms_id", bytes(32))
    with pytest.raises(_seal.SealError) as caught:
        encryptor.encrypt(plaintext_of(SMALLEST))
    assert spy.steps == STEPS[: STEPS.index("ciphertext_bytes") + 1]
    assert_nothing_is_left(spy)
    frames = list(frames_below(caught.value, __file__))
    assert {"_phase", "_to_twin", "load_ciphertext"} <= {frame.f_code.co_name for frame in frames}
    assert_secret(spy, (value for frame in frames for value in reachable(frame.f_locals)))


@SETS
def test_without_a_seed_nothing_is_encrypted(
    parameter_set: ParameterSet, spy: SealSpy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: int) -> NoReturn:
        raise OSError(errno.EIO, "no entropy")

    encryptor = encryptor_of(spy, parameter_set)
    monkeypatch.setattr(os, "urandom", exhausted)
    with pytest.raises(OSError, match="no entropy"):
        encryptor.encrypt(plaintext_of(parameter_set))
    assert not spy.steps
