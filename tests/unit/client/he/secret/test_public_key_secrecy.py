"""The pair (b, a) that a seeded public key is made from outlives no call.

Beside the seeded key it would give the secret key.
"""

import errno
import json
import logging
import os
from base64 import b64encode
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.seal_format import RESIDUES_AT
from sealserve.he.secret import public_key
from sealserve.he.secret.public_key import generate_public_key
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support.seal_spy import SealSpy, seal_spy
from tests.support.seeded import unseeded_public_key
from tests.support.spied_pairs import assert_nothing_is_left, assert_secret, frames_below, reachable

SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
EVERY_SET = (SMALLEST, LAYOUTS["row"].private_parameter_sets[0])
KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in EVERY_SET}
SETS = pytest.mark.parametrize("parameter_set", EVERY_SET, ids=lambda s: s.name)
STEPS = [
    *("load_ciphertext", "create_public_key", "load_ciphertext", "sub_inplace", "decrypt"),
]

spy = pytest.fixture(seal_spy)


@SETS
def test_the_pair_is_in_nothing_that_is_returned_or_kept(parameter_set: ParameterSet, spy: SealSpy) -> None:
    data = generate_public_key(parameter_set, KEYS[parameter_set])
    assert spy.steps == STEPS
    assert_nothing_is_left(spy)
    assert_secret(spy, [data])
    kept = [value for module in (public_key, _seal) for value in vars(module).values()]
    assert_secret(spy, reachable([value for value in kept if not isinstance(value, ModuleType)]))


@SETS
def test_the_pair_is_in_no_secret_key_and_no_file(parameter_set: ParameterSet, spy: SealSpy, tmp_path: Path) -> None:
    key = SecretKey.generate(parameter_set)
    spy.forget()
    key.save(tmp_path / "key")
    assert spy.steps == STEPS
    assert_nothing_is_left(spy)
    assert_secret(spy, [getattr(key, name) for name in SecretKey.__slots__])
    fields = json.loads((tmp_path / "key").read_bytes())
    # The pair is not there in base64 either: of three bytes on, one alignment would be.
    written = fields.pop("public_encryption_key") + json.dumps(fields)
    for pair in spy.pairs + spy.differences:
        for start in range(3):
            at = RESIDUES_AT + start
            assert b64encode(pair[at : at + 15]).decode() not in written


def test_the_pair_would_be_found(spy: SealSpy) -> None:
    """It would be found anywhere: the other tests see what they look for."""
    generate_public_key(SMALLEST, KEYS[SMALLEST])
    (pair,), (difference,) = spy.pairs, spy.differences
    for value in (pair, pair[-160:], b"x" + difference[-160:], np.frombuffer(pair[-800:], np.uint64)):
        with pytest.raises(AssertionError):
            assert_secret(spy, reachable([{"a": value}]))
    assert_nothing_is_left(spy)
    kept_bytes = spy.data[-1]
    with pytest.raises(AssertionError):
        assert_nothing_is_left(spy)
    del kept_bytes
    assert_nothing_is_left(spy)


def test_the_pair_gives_the_key(spy: SealSpy) -> None:
    """The reason: s = (b' - b) / (a - a') in NTT form, the form in which SEAL writes keys."""
    (prime,), N = SMALLEST.primes, SMALLEST.poly_modulus_degree
    moved = np.frombuffer(generate_public_key(SMALLEST, KEYS[SMALLEST]), np.uint64, N, RESIDUES_AT).astype(object)
    b, difference = np.frombuffer(spy.differences[0], np.uint64, offset=RESIDUES_AT).reshape(2, N).astype(object)
    inverses = np.array([pow(int(residue), -1, prime) for residue in difference], object)
    secret = ((moved - b) * inverses % prime).astype(np.uint64)
    assert KEYS[SMALLEST].endswith(secret.tobytes())


def test_a_key_that_was_written_is_never_moved(spy: SealSpy, tmp_path: Path) -> None:
    """An older file has an unseeded key, which others may have: the new key is of another pair."""
    key, file = SecretKey.generate(SMALLEST), tmp_path / "key"
    key.save(file)
    written = unseeded_public_key(SMALLEST, key.export(TOKEN))
    fields = json.loads(file.read_bytes()) | {"public_encryption_key": b64encode(written).decode()}
    file.write_text(json.dumps(fields))
    spy.forget()
    assert SecretKey.load(file).public_encryption_key
    assert spy.steps == STEPS
    assert spy.pairs[0][RESIDUES_AT:] != written[RESIDUES_AT:]
    spy.pairs, spy.differences = [written], []
    assert_secret(spy, spy.data)


def test_nothing_is_logged_or_printed(
    spy: SealSpy, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        generate_public_key(SMALLEST, KEYS[SMALLEST])
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
    spy.failing_step, spy.failure = step, failure("of the test")
    with pytest.raises(_seal.SealError if failure is RuntimeError else failure, match="of the test") as caught:
        generate_public_key(parameter_set, KEYS[parameter_set])
    assert spy.steps == STEPS[: step + 1]
    assert_nothing_is_left(spy)  # though the error is still there
    frames = list(frames_below(caught.value, __file__))
    assert {"generate_public_key", "_generate", "step"} <= {frame.f_code.co_name for frame in frames}
    if spy.pairs:
        assert_secret(spy, (value for frame in frames for value in reachable(frame.f_locals)))

    spy.failing_step = None
    spy.forget()
    assert generate_public_key(parameter_set, KEYS[parameter_set])
    assert spy.steps == STEPS


def test_a_failure_of_seal_itself_leaves_nothing_behind(spy: SealSpy, monkeypatch: pytest.MonkeyPatch) -> None:
    real = public_key._to_twin

    def fail_after_the_first(twin: _seal.Context, data: bytes) -> _seal.Ciphertext:
        return real(twin, data if not spy.pairs else data[:20] + bytes(8) + data[28:-8])

    monkeypatch.setattr(public_key, "_to_twin", fail_after_the_first)
    with pytest.raises(_seal.SealError) as caught:
        generate_public_key(SMALLEST, KEYS[SMALLEST])
    assert spy.steps == STEPS[: STEPS.index("create_public_key") + 1]
    assert_nothing_is_left(spy)
    frames = list(frames_below(caught.value, __file__))
    assert {"_generate", "_to_twin", "load_ciphertext"} <= {frame.f_code.co_name for frame in frames}
    assert_secret(spy, (value for frame in frames for value in reachable(frame.f_locals)))


@SETS
def test_without_a_seed_no_key_is_made(
    parameter_set: ParameterSet, spy: SealSpy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: int) -> NoReturn:
        raise OSError(errno.EIO, "no entropy")

    monkeypatch.setattr(os, "urandom", exhausted)
    with pytest.raises(OSError, match="no entropy"):
        generate_public_key(parameter_set, KEYS[parameter_set])
    assert not spy.steps
