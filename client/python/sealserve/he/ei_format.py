"""SEAL objects of encrypted-inference 0.9, with the checks that SEAL's own load does not make.

The native part of encrypted-inference is SEAL 3.5. Its objects carry version 3.5 and are compressed
with zlib (deflate). Its ciphertexts and keys are seeded.

encrypted-inference expands seeds by the rule that SEAL 4.x applies to objects of version 3.4. So
this module writes version 3.4 into every header that it reads. With version 3.5 in the headers,
SEAL 4.x would load the objects without an error and decrypt them to garbage.

SEAL 3.5 has no correction factor, and no header before a seed. Nested objects have headers of their
own, at offsets that follow from what comes before them:

    ciphertext       header, members, residues of c0 (header, count, words), seed
    reply            a ciphertext with residues of c0 and c1, without a seed
    key switching    header, parms_id, count, and for each key: count, and for each data prime a
                     ciphertext
    upload of keys   Galois keys, relinearization keys

Sources: SEAL native/src/seal/serialization.h, ciphertext.cpp (load_members), kswitchkeys.cpp, and
the bytes themselves.
"""

import math
import struct
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np

from sealserve.errors import (
    CiphertextFault,
    KeyFault,
    MalformedCiphertextError,
    MalformedKeyError,
    ReplyError,
)
from sealserve.he import _seal
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS
from sealserve.he.seal_format import COUNT, HEADER, MAGIC, PARMS_ID_BYTES

ROTATIONS = tuple(1 << power for power in range(12))
"""The rotation steps that have Galois keys: to the left, by 1 to half of the slots."""

_N = EI_PARAMETER_SET.poly_modulus_degree
_MAJOR = 3
_MINOR = 5
_SEED_EXPANDING_MINOR = 4
_MINOR_AT = 4  # the offset of the minor version in a header
_NO_COMPRESSION = 0
_DEFLATE = 1
_MEMBERS = struct.Struct("<?QQQd")  # NTT form, size, N, primes, scale
_SEED_BYTES = 64
_CORRECTION_FACTOR_BYTES = 8
_KEY_FAULTS = {
    CiphertextFault.LENGTH: KeyFault.FORMAT,
    CiphertextFault.HEADER: KeyFault.FORMAT,
    CiphertextFault.PARAMETERS: KeyFault.PARAMETERS,
    CiphertextFault.FORM: KeyFault.FORMAT,
    CiphertextFault.COEFFICIENT: KeyFault.COEFFICIENT,
}


class EvaluationKeyParts(NamedTuple):
    """The two objects of an upload of evaluation keys, uncompressed, for SEAL 4.4 to load."""

    galois: bytes
    relinearization: bytes


def read_ciphertext(data: bytes) -> bytes:
    """Convert an untrusted ciphertext of encrypted-inference 0.9 to one for SEAL 4.4, uncompressed.

    Raises:
        MalformedCiphertextError: a check fails. The error has the first one that does. The caller
            must set its index.
    """
    form = _fresh_ciphertext()
    body, end = _inflate(data, 0, form.body_bytes)
    if end != len(data):
        raise MalformedCiphertextError(CiphertextFault.LENGTH)
    form.read(body, 0)
    return _object(body)


def read_evaluation_keys(data: bytes) -> EvaluationKeyParts:
    """Convert an untrusted upload of evaluation keys to objects for SEAL 4.4.

    The upload is what `get_public_keys` of encrypted-inference 0.9 returns.

    Raises:
        MalformedKeyError: a check fails. The error has the first one that does.
    """
    try:
        galois, end = _inflate(data, 0, _key_switching_bytes(_N, len(ROTATIONS)))
        _read_keys(galois, _N, _galois_indices())
        relinearization, end = _inflate(data, end, _key_switching_bytes(1, 1))
        _read_keys(relinearization, 1, (0,))
        if end != len(data):
            raise MalformedKeyError(KeyFault.FORMAT)
    except MalformedCiphertextError as error:  # a key consists of ciphertexts
        raise MalformedKeyError(_KEY_FAULTS[error.reason]) from None
    return EvaluationKeyParts(_object(galois), _object(relinearization))


def check_reply(data: bytes) -> None:
    """Check an untrusted reply before the native part of encrypted-inference reads it.

    Bytes that are not a ciphertext can crash the native part.

    Raises:
        ReplyError: the reply is not a ciphertext of two polynomials at a level of the parameters.
    """
    data_primes = EI_PARAMETER_SET.data_primes
    levels = _seal.data_parms_ids(_seal.context(EI_PARAMETERS))
    try:
        body, end = _inflate(data, 0, _Ciphertext(levels[0], data_primes, 1.0, seeded=False).body_bytes)
        parms_id = bytes(body[:PARMS_ID_BYTES])
        if end != len(data) or parms_id not in levels or len(body) < PARMS_ID_BYTES + _MEMBERS.size:
            raise ReplyError
        scale = _MEMBERS.unpack_from(body, PARMS_ID_BYTES)[-1]
        primes = data_primes[: len(data_primes) - levels.index(parms_id)]
        if not 0 < scale < math.inf or _Ciphertext(parms_id, primes, scale, seeded=False).read(body, 0) != len(body):
            raise ReplyError
    except MalformedCiphertextError:
        raise ReplyError from None


def write_ciphertext(data: bytes) -> bytes:
    """Convert an uncompressed ciphertext of SEAL 4.4 to one that encrypted-inference 0.9 reads."""
    members_end = HEADER.size + PARMS_ID_BYTES + _MEMBERS.size
    residues = members_end + _CORRECTION_FACTOR_BYTES + HEADER.size
    inner_bytes = HEADER.size + len(data) - residues
    return b"".join(
        (
            _header(_MINOR, members_end + inner_bytes),
            data[HEADER.size : members_end],
            _header(_MINOR, inner_bytes),
            data[residues:],
        )
    )


class _Ciphertext:
    """The members of the ciphertexts of one level: two polynomials in NTT form.

    If `seeded`, the second polynomial is a seed.
    """

    def __init__(self, parms_id: bytes, primes: tuple[int, ...], scale: float, *, seeded: bool = True) -> None:
        self._parms_id = parms_id
        self._primes = np.array(primes, np.uint64)[:, None]
        self._form = _MEMBERS.pack(True, 2, _N, len(primes), scale)
        self._words = len(primes) * _N * (1 if seeded else 2)
        self._residues_bytes = HEADER.size + COUNT.size + 8 * self._words
        self.body_bytes = len(parms_id) + _MEMBERS.size + self._residues_bytes + seeded * _SEED_BYTES

    def read(self, data: bytearray, at: int) -> int:
        """Check the members at an offset and return the offset after them.

        The header among the members gets version 3.4.

        Raises:
            MalformedCiphertextError: a check fails. The error has the first one that does.
        """
        if len(data) - at < self.body_bytes:
            raise MalformedCiphertextError(CiphertextFault.LENGTH)
        form = at + len(self._parms_id)
        residues = form + _MEMBERS.size
        if data[at:form] != self._parms_id:
            raise MalformedCiphertextError(CiphertextFault.PARAMETERS)
        if data[form:residues] != self._form:
            raise MalformedCiphertextError(CiphertextFault.FORM)
        words = _read_header(data, residues, self._residues_bytes)
        if COUNT.unpack_from(data, words) != (self._words,):
            raise MalformedCiphertextError(CiphertextFault.HEADER)
        values = np.frombuffer(data, np.uint64, self._words, words + COUNT.size)
        if (values.reshape(-1, len(self._primes), _N) >= self._primes).any():
            raise MalformedCiphertextError(CiphertextFault.COEFFICIENT)
        return at + self.body_bytes


@cache
def _fresh_ciphertext() -> _Ciphertext:
    parms_id = _seal.fresh_parms_id(_seal.context(EI_PARAMETERS))
    return _Ciphertext(parms_id, EI_PARAMETER_SET.data_primes, EI_PARAMETERS.scale)


@cache
def _key_ciphertext() -> _Ciphertext:
    return _Ciphertext(_seal.key_parms_id(_seal.context(EI_PARAMETERS)), EI_PARAMETER_SET.primes, 1.0)


@cache
def _galois_indices() -> tuple[int, ...]:
    """Return the indices of the rotations' keys, ascending.

    A step has the Galois element 3^step mod 2N, and an element has the index (element - 1) / 2.
    Source: SEAL util/galois.h.
    """
    return tuple(sorted((pow(3, step, 2 * _N) - 1) // 2 for step in ROTATIONS))


def _key_switching_bytes(places: int, key_count: int) -> int:
    """Return the size of key-switching keys without their header."""
    part_count = key_count * len(EI_PARAMETER_SET.data_primes)
    return PARMS_ID_BYTES + COUNT.size * (1 + places) + part_count * (HEADER.size + _key_ciphertext().body_bytes)


def _read_keys(data: bytearray, places: int, indices: tuple[int, ...]) -> None:
    """Check that key-switching keys have a key at each of the indices and at no other index.

    All their headers get version 3.4.

    Raises:
        MalformedKeyError, MalformedCiphertextError: a check fails. The error has the first one that
            does.
    """
    part = _key_ciphertext()
    parms_id = _seal.key_parms_id(_seal.context(EI_PARAMETERS))
    digits = len(EI_PARAMETER_SET.data_primes)
    at = len(parms_id)
    if data[:at] != parms_id or _count(data, at) != places:
        raise MalformedKeyError(KeyFault.PARAMETERS)
    at += COUNT.size
    for place in range(places):
        part_count = _count(data, at)
        at += COUNT.size
        if part_count != (digits if place in indices else 0):
            raise MalformedKeyError(KeyFault.PARAMETERS)
        for _ in range(part_count):
            at = part.read(data, _read_header(data, at, HEADER.size + part.body_bytes))


def _count(data: bytearray, at: int) -> int:
    if len(data) - at < COUNT.size:
        raise MalformedCiphertextError(CiphertextFault.LENGTH)
    count: int = COUNT.unpack_from(data, at)[0]
    return count


def _read_header(data: bytearray, at: int, total_bytes: int) -> int:
    """Check the header of a nested object of that size and return the offset after it.

    The header gets version 3.4.
    """
    expected = _header(_MINOR, total_bytes)
    if data[at : at + HEADER.size] != expected:
        raise MalformedCiphertextError(CiphertextFault.HEADER)
    data[at + _MINOR_AT] = _SEED_EXPANDING_MINOR
    return at + HEADER.size


def _inflate(data: bytes, at: int, max_bytes: int) -> tuple[bytearray, int]:
    """Return the inflated body of the object at an offset, and the offset after the object.

    Never more than max_bytes + 1 bytes are inflated.

    Raises:
        MalformedCiphertextError: the object is not one of SEAL 3.5, it is incomplete, or it
            inflates to more than max_bytes.
    """
    if len(data) - at < HEADER.size:
        raise MalformedCiphertextError(CiphertextFault.LENGTH)
    magic, size, major, minor, compression, reserved, total_bytes = HEADER.unpack_from(data, at)
    if (magic, size, major, minor, reserved) != (MAGIC, HEADER.size, _MAJOR, _MINOR, 0):
        raise MalformedCiphertextError(CiphertextFault.HEADER)
    start = at + HEADER.size
    end = at + total_bytes
    if not start <= end <= len(data):
        raise MalformedCiphertextError(CiphertextFault.LENGTH)
    body = memoryview(data)[start:end]
    if compression == _NO_COMPRESSION:
        if len(body) > max_bytes:
            raise MalformedCiphertextError(CiphertextFault.LENGTH)
        return bytearray(body), end
    if compression != _DEFLATE:
        raise MalformedCiphertextError(CiphertextFault.HEADER)
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        raise MalformedCiphertextError(CiphertextFault.HEADER) from None
    if len(inflated) > max_bytes or not stream.eof or stream.unused_data:
        raise MalformedCiphertextError(CiphertextFault.LENGTH)
    return bytearray(inflated), end


def _object(body: bytearray) -> bytes:
    return _header(_SEED_EXPANDING_MINOR, HEADER.size + len(body)) + body


def _header(minor: int, total_bytes: int) -> bytes:
    return HEADER.pack(MAGIC, HEADER.size, _MAJOR, minor, _NO_COMPRESSION, 0, total_bytes)
