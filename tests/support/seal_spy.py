"""A spy on SEAL while a pair is moved onto a seed, which can make any of the steps fail."""

import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sealserve.he import _seal
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.secret.seeded_encryptor import SeededEncryptor

ROLES = ("Encryptor", "Decryptor", "Evaluator", "KeyGenerator")
FUNCTIONS = ("load_ciphertext", "ciphertext_bytes")
ciphertext_bytes = _seal.ciphertext_bytes  # unwatched


class SealSpy:
    """The steps that SEAL has been asked for, and what they took and returned.

    Attributes:
        steps: names of functions and methods, in order.
        pairs: the bytes of SEAL's fresh ciphertexts, (c0, c1), and of its public keys, (b, a):
            they give the key.
        differences: the bytes of (c0, c1 - c1') and (b, a - a'), in NTT form: so do they.
        seeds: what the system drew.
        failing_step: the index of the step that fails with `failure`; none by default.
        objects: references, not holding them, to SEAL's objects that the steps returned.
        data: bytes that the steps took or returned.
    """

    def __init__(self) -> None:
        self.failing_step: int | None = None
        self.failure: BaseException = RuntimeError("as SEAL throws them")
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.steps: list[str] = []
        self.pairs: list[bytes] = []
        self.differences: list[bytes] = []
        self.seeds: list[bytes] = []
        self.objects: list[weakref.ref[Any]] = []
        self.data: list[bytes] = []

    def encryptor(self, parameters: EncryptionParameters, secret_key: bytes) -> SeededEncryptor:
        """Build an encryptor, and forget its construction."""
        built = SeededEncryptor(parameters, secret_key)
        self.forget()
        return built

    def step(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        """Make a step of SEAL's.

        A step that fails has done its work first, so that it leaves most behind.
        """
        result = real(*arguments)
        if name == "encrypt_symmetric":
            self.pairs.append(ciphertext_bytes(result))
        elif name == "create_public_key":
            self.pairs.append(result.to_string())
        elif name == "transform_to_ntt_inplace" or (name == "sub_inplace" and arguments[0].is_ntt_form()):
            self.differences.append(ciphertext_bytes(arguments[0]))
        self.data += [value for value in (*arguments, result) if isinstance(value, bytes)]
        if result is not None and not isinstance(result, bytes):
            self.objects.append(weakref.ref(result))
        self.steps.append(name)
        if len(self.steps) - 1 == self.failing_step:
            raise self.failure
        return result


class _SpiedOn:
    """One of SEAL's objects, each of whose methods is a step."""

    def __init__(self, spy: SealSpy, real: Any) -> None:
        self._spy, self._real = spy, real

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._spy.step(name, getattr(self._real, name), *arguments)


def seal_spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SealSpy]:
    """A fixture: a spy on all SEAL objects that are made from now on."""
    spy = SealSpy()

    def spied_role(real: Any) -> Callable[..., Any]:
        return lambda *arguments: _SpiedOn(spy, real(*arguments))

    def spied_function(name: str, real: Any) -> Callable[..., Any]:
        return lambda *arguments: spy.step(name, real, *arguments)

    def drawn(count: int, urandom: Callable[[int], bytes] = os.urandom) -> bytes:
        spy.seeds.append(urandom(count))
        return spy.seeds[-1]

    for role in ROLES:
        monkeypatch.setattr(_seal, role, spied_role(getattr(_seal, role)))
    for name in FUNCTIONS:
        monkeypatch.setattr(_seal, name, spied_function(name, getattr(_seal, name)))
    monkeypatch.setattr(os, "urandom", drawn)
    yield spy
