"""SEAL's serialized objects as arrays and back, with the checks that SEAL's own load does not make.

An object is a 16-byte header (magic, header size, major and minor version, compression, reserved,
total size), then its members. Nested objects have headers of their own. In an uncompressed
ciphertext of known parameters, every byte before the residues is known beforehand. A check of a
ciphertext therefore compares bytes.

A packed ciphertext is not SEAL's. It is a seeded one without headers, packed to the bit:

    parms_id    32 bytes
    seed        64 bytes, of SEAL's default generator
    residues    of c0, of as many bits as the greatest data prime has (see `bit_packing`)

A polynomial has so many coefficients that the residues end with a whole byte.

Sources: SEAL native/src/seal/serialization.h, ciphertext.cpp (save_members) and plaintext.h.
"""

import struct
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he.bit_packing import packed_bytes
from sealserve.he.packed_polynomial import PolynomialPacker, PolynomialUnpacker
from sealserve.he.parameters import ParameterSet

# Magic, header size, major version, minor version, compression, reserved, total size.
HEADER = struct.Struct("<HBBBBHQ")
MAGIC = 0xA15E
_MAJOR = 4
_MINOR = 4
PARMS_ID_BYTES = 32
_PARMS_ID_END = HEADER.size + PARMS_ID_BYTES
MEMBERS = struct.Struct("<?QQQdQ")  # NTT form, size, N, data primes, scale, correction factor
COUNT = struct.Struct("<Q")
_MEMBERS_END = _PARMS_ID_END + MEMBERS.size
RESIDUES_AT = _MEMBERS_END + HEADER.size + COUNT.size
"""The offset of the residues in a ciphertext."""
SEED_BYTES = 64
SEED_INFO_BYTES = HEADER.size + 1 + SEED_BYTES
"""What follows the residues of a seeded object: a header, the type of the generator, the seed."""
_PACKED_RESIDUES_AT = PARMS_ID_BYTES + SEED_BYTES
BLAKE2XB = 1
_SHAKE256 = 2
_PRNG_TYPES = (BLAKE2XB, _SHAKE256)


def header(total_bytes: int) -> bytes:
    """Build the header of an uncompressed object of that length."""
    return HEADER.pack(MAGIC, HEADER.size, _MAJOR, _MINOR, 0, 0, total_bytes)


def seed_info(seed: bytes) -> bytes:
    """Build what follows the residues of a seeded object: a seed for SEAL's default generator."""
    return b"".join((header(SEED_INFO_BYTES), bytes((BLAKE2XB,)), seed))


class CiphertextFormat:
    """Bytes of the ciphertexts of one level of a context: two polynomials in coefficient form.

    Attributes:
        shape: of the residues: (2, primes, N).
        full_prefix: what precedes the residues of a full ciphertext.
        full_bytes, seeded_bytes, packed_bytes: the lengths of a full, a seeded and a packed
            ciphertext. No two of them are equal.
        packs: whether a packed ciphertext is shorter than a seeded one by a fifth or more. Where it
            is not, there is none: `checked` refuses it. A residue has 51 bits at most where it is.

    Args:
        parameter_set: of the context.
        parms_id: of the level.
        prime_count: how many data primes the level has, the first ones; None for all of them.
    """

    def __init__(self, parameter_set: ParameterSet, parms_id: bytes, prime_count: int | None = None) -> None:
        primes = parameter_set.data_primes[:prime_count]
        self.shape = (2, len(primes), parameter_set.poly_modulus_degree)
        self._primes = np.array(primes, np.uint64)[:, None]
        _, prime_count, N = self.shape
        members = parms_id + MEMBERS.pack(False, 2, N, prime_count, 1.0, 1)

        def prefix(words: int, behind: int) -> bytes:
            inner = HEADER.size + COUNT.size + 8 * words
            return header(HEADER.size + len(members) + inner + behind) + members + header(inner) + COUNT.pack(words)

        words = prime_count * N
        self.full_prefix = prefix(2 * words, 0)
        self._seeded = prefix(words, SEED_INFO_BYTES)
        self.full_bytes = len(self.full_prefix) + 16 * words
        self.seeded_bytes = len(self._seeded) + 8 * words + SEED_INFO_BYTES
        self._parms_id, self._bits = parms_id, max(primes).bit_length()
        self.packed_bytes = _PACKED_RESIDUES_AT + packed_bytes(words, self._bits)
        self.packs = 5 * self.packed_bytes <= 4 * self.seeded_bytes

    def checked(self, data: bytes) -> bytes:
        """Check untrusted bytes, so that SEAL loads nothing but a fresh ciphertext, full or seeded.

        Returns:
            The bytes; of a packed ciphertext the seeded one.

        Raises:
            MalformedCiphertextError: a check fails. The error has the first one that does. The
                caller must set its index.
        """
        if self.packs and len(data) == self.packed_bytes:
            return self._unpacked(data)
        seeded = len(data) == self.seeded_bytes
        if not seeded and len(data) != self.full_bytes:
            raise MalformedCiphertextError(CiphertextFault.LENGTH)
        expected = self._seeded if seeded else self.full_prefix
        if not data.startswith(expected):  # another minor version, or a fault
            self._check_prefix(data, expected)
        _, prime_count, N = self.shape
        words = prime_count * N * (1 if seeded else 2)
        residues = np.frombuffer(data, np.uint64, words, RESIDUES_AT).reshape(-1, prime_count, N)
        if (residues >= self._primes).any():
            raise MalformedCiphertextError(CiphertextFault.COEFFICIENT)
        if seeded:
            info = data[-SEED_INFO_BYTES:]
            if not is_header(info, SEED_INFO_BYTES) or info[HEADER.size] not in _PRNG_TYPES:
                raise MalformedCiphertextError(CiphertextFault.HEADER)
        elif not (residues[1, 0, 0] or residues[1].any()):  # the first residue usually suffices
            raise MalformedCiphertextError(CiphertextFault.TRANSPARENT)
        return data

    def _unpacked(self, data: bytes) -> bytes:
        """Check a packed ciphertext of the right length, and return the seeded one."""
        if not data.startswith(self._parms_id):
            raise MalformedCiphertextError(CiphertextFault.PARAMETERS)
        _, prime_count, N = self.shape
        c0 = self._unpacker.unpack(data[_PACKED_RESIDUES_AT:], prime_count * N).reshape(prime_count, N)
        if (c0 >= self._primes).any():
            raise MalformedCiphertextError(CiphertextFault.COEFFICIENT)
        return self.pack_seeded(c0, data[PARMS_ID_BYTES:_PACKED_RESIDUES_AT])

    @cached_property
    def _packer(self) -> PolynomialPacker:
        return PolynomialPacker((), self._bits, self.shape[1] * self.shape[2])

    @cached_property
    def _unpacker(self) -> PolynomialUnpacker:
        return PolynomialUnpacker((), self._bits, self.shape[1] * self.shape[2])

    def checked_residues(self, ciphertexts: Sequence[bytes]) -> NDArray[np.uint64] | None:
        """Return the residues of full ciphertexts if all of them pass all checks.

        The shape is (ciphertexts, 2, data primes, N). Return None if a check fails. One call checks
        many ciphertexts, because NumPy releases the GIL in every call and may have to wait for it
        afterwards.
        """
        if any(len(data) != self.full_bytes or not data.startswith(self.full_prefix) for data in ciphertexts):
            return None
        joined = b"".join([memoryview(data)[RESIDUES_AT:] for data in ciphertexts])
        residues = np.frombuffer(joined, np.uint64).reshape(-1, *self.shape)
        for index, prime in enumerate(self._primes.ravel()):
            if residues[:, :, index].max() >= prime:
                return None
        return residues if residues[:, 1, 0, 0].all() else None

    @staticmethod
    def _check_prefix(data: bytes, expected: bytes) -> None:
        for at in (0, _MEMBERS_END):
            total = HEADER.unpack_from(expected, at)[-1]
            if not is_header(data[at : at + HEADER.size], total):
                raise MalformedCiphertextError(CiphertextFault.HEADER)
        if data[HEADER.size : _PARMS_ID_END] != expected[HEADER.size : _PARMS_ID_END]:
            raise MalformedCiphertextError(CiphertextFault.PARAMETERS)
        if data[_PARMS_ID_END:_MEMBERS_END] != expected[_PARMS_ID_END:_MEMBERS_END]:
            raise MalformedCiphertextError(CiphertextFault.FORM)
        if data[RESIDUES_AT - COUNT.size : RESIDUES_AT] != expected[-COUNT.size :]:
            raise MalformedCiphertextError(CiphertextFault.HEADER)

    def residues(self, data: bytes) -> NDArray[np.uint64]:
        """Return a read-only view (2, data primes, N) of a full ciphertext that SEAL wrote."""
        return np.frombuffer(data, np.uint64, offset=RESIDUES_AT).reshape(self.shape)

    def pack(self, c0: NDArray[np.uint64], c1: bytes) -> bytes:
        """Build a full ciphertext of c0 (data primes, N) and the bytes of c1 of the same shape."""
        return b"".join((self.full_prefix, c0.tobytes(), c1))

    def pack_seeded(self, c0: NDArray[np.uint64], seed: bytes) -> bytes:
        """Build a seeded ciphertext from c0 (data primes, N) and a seed of SEED_BYTES."""
        return b"".join((self._seeded, c0.tobytes(), seed_info(seed)))

    def pack_bits(self, c0: NDArray[np.uint64], seed: bytes) -> bytes:
        """Build a packed ciphertext from c0 (data primes, N) and a seed of SEED_BYTES."""
        return b"".join((self._parms_id, seed, self._packer.pack(c0.reshape(1, -1))))


def is_header(data: bytes, total_bytes: int) -> bool:
    """Tell whether data is the header of an uncompressed SEAL 4.x object of that length.

    Any minor version is accepted.
    """
    magic, size, major, _, compression, reserved, total = HEADER.unpack_from(data)
    return (magic, size, major, compression, reserved, total) == (MAGIC, HEADER.size, _MAJOR, 0, 0, total_bytes)


# parms_id (zero for coefficient form), coefficient count, scale.
_PLAINTEXT_MEMBERS = struct.Struct("<32xQd")
_PLAINTEXT_PREFIX_BYTES = 2 * HEADER.size + _PLAINTEXT_MEMBERS.size + COUNT.size


def plaintext_prefix(coefficient_count: int) -> bytes:
    """Build what precedes the little-endian coefficients of a BFV plaintext of so many."""
    inner = HEADER.size + COUNT.size + 8 * coefficient_count
    members = _PLAINTEXT_MEMBERS.pack(coefficient_count, 1.0)
    return header(HEADER.size + len(members) + inner) + members + header(inner) + COUNT.pack(coefficient_count)


def pack_plaintext(coefficients: NDArray[np.uint64]) -> bytes:
    """Build a BFV plaintext of coefficients (N,) below t."""
    return plaintext_prefix(coefficients.size) + coefficients.tobytes()


def plaintext_coefficients(data: bytes, poly_modulus_degree: int) -> NDArray[np.uint64]:
    """Return the coefficients (N,) of a plaintext that SEAL wrote.

    SEAL drops leading zeros. They are included here.
    """
    coefficients = np.zeros(poly_modulus_degree, np.uint64)
    written = np.frombuffer(data, np.uint64, offset=_PLAINTEXT_PREFIX_BYTES)
    coefficients[: len(written)] = written
    return coefficients


def restamp(data: bytes, parms_id: bytes) -> bytes:
    """Return an object's bytes with another parms_id.

    A secret key depends only on N and the primes, but the parms_id in its bytes also depends on
    scheme and t. The same holds for the residues of a ciphertext.
    """
    return data[: HEADER.size] + parms_id + data[_PARMS_ID_END:]
