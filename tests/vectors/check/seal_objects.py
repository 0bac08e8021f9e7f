"""SEAL's objects: their bytes, as Chunk and KEY_KIND_PUBLIC_ENCRYPTION_KEY describe them."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from sealserve.v1 import parameters_pb2
from tests.vectors.check.polynomials import composed
from tests.vectors.check.seeds import expanded

HEADER = struct.Struct("<HBBBBHQ")
MEMBERS = struct.Struct("<BQQQdQ")
SEED_BYTES = 81
"""The length of what a seeded object has behind its residues."""


class RefusedError(Exception):
    """What has come is refused. The text is one word that says why."""


def require(condition: object, fault: str) -> None:
    """Refuse what does not meet a condition."""
    if not condition:
        raise RefusedError(fault)


def unpacked(data: bytes, bits: int, count: int) -> list[int]:
    """So many integers of so many bits; there must be nothing else."""
    require(len(data) == -(-count * bits // 8), "length")
    whole = int.from_bytes(data, "little")
    require(whole >> count * bits == 0, "rest")
    return [whole >> index * bits & (1 << bits) - 1 for index in range(count)]


def header(total: int) -> bytes:
    """The header of an uncompressed object of so many bytes."""
    return HEADER.pack(0xA15E, 16, 4, 4, 0, 0, total)


def parms_id(scheme: int, N: int, primes: Sequence[int], plain_modulus: int) -> bytes:
    """SEAL's digest of encryption parameters."""
    words = (scheme, N, *primes, plain_modulus)
    return hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()


@dataclass(frozen=True)
class Ring:
    """A degree N and primes: those of ciphertexts, or those of keys."""

    N: int
    primes: tuple[int, ...]

    @property
    def word_count(self) -> int:
        """The residues of a polynomial."""
        return self.N * len(self.primes)

    def residues(self, data: bytes) -> list[list[int]]:
        """Residues for each prime, of as many coefficients as there are."""
        count = len(data) // (8 * len(self.primes))
        rows = [list(struct.unpack_from(f"<{count}Q", data, 8 * count * k)) for k in range(len(self.primes))]
        require(all(max(row) < p for row, p in zip(rows, self.primes, strict=True)), "residue")
        return rows

    def prefix(self, parms_id: bytes, words: int, *, is_values: bool, behind: int = 0) -> bytes:
        """What precedes so many residues in a ciphertext, or in a key, which is of values."""
        form = MEMBERS.pack(is_values, 2, self.N, len(self.primes), 1.0, 1)
        inner = 24 + 8 * words
        before = header(89 + inner + behind) + parms_id + form + header(inner) + struct.pack("<Q", words)
        assert len(before) == 113
        return before


@dataclass(frozen=True)
class Parameters:
    """What a client knows of encryption parameters of BFV."""

    N: int
    key_primes: tuple[int, ...]
    data_prime_count: int
    t: int
    parms_id: bytes

    @classmethod
    def of(cls, message: parameters_pb2.EncryptionParameters) -> "Parameters":
        """Those of a description."""
        primes, count = tuple(message.coeff_modulus), message.data_prime_count
        return cls(message.poly_modulus_degree, primes, count, message.plain_modulus, message.parms_id)

    @cached_property
    def data(self) -> Ring:
        """The ring of ciphertexts."""
        return Ring(self.N, self.key_primes[: self.data_prime_count])

    @cached_property
    def keys(self) -> Ring:
        """The ring of keys."""
        return Ring(self.N, self.key_primes)

    @cached_property
    def q(self) -> int:
        """The product of the data primes."""
        return prod(self.data.primes)

    @cached_property
    def key_parms_id(self) -> bytes:
        """The parms_id of keys."""
        return parms_id(parameters_pb2.SCHEME_BFV, self.N, self.key_primes, 2)

    @cached_property
    def full_bytes(self) -> int:
        """The length of a full ciphertext."""
        return 113 + 16 * self.data.word_count

    @cached_property
    def seeded_bytes(self) -> int:
        """The length of a seeded ciphertext."""
        return 113 + 8 * self.data.word_count + SEED_BYTES

    @cached_property
    def residue_bits(self) -> int:
        """The bits of a residue of a packed ciphertext."""
        return max(self.data.primes).bit_length()

    @cached_property
    def packed_bytes(self) -> int:
        """The length of a packed ciphertext."""
        return 96 + self.data.word_count * self.residue_bits // 8

    @cached_property
    def takes_packed(self) -> bool:
        """Whether packed ciphertexts are offered: they are a fifth shorter than seeded ones."""
        return 5 * self.packed_bytes <= 4 * self.seeded_bytes

    def is_packed(self, ciphertext: bytes) -> bool:
        """Whether a ciphertext has the length of a packed one."""
        return self.takes_packed and len(ciphertext) == self.packed_bytes

    def _packed_residues(self, ciphertext: bytes) -> list[list[int]]:
        """The residues of c0 for each prime."""
        found = unpacked(ciphertext[96:], self.residue_bits, self.data.word_count)
        return [found[at : at + self.N] for at in range(0, len(found), self.N)]

    def ciphertext_fault(self, data: bytes) -> str:
        """The first reason of MalformedCiphertext that holds for a ciphertext; "" if it is good."""
        if self.is_packed(data):
            if data[:32] != self.parms_id:
                return "REASON_PARAMETERS"
            rows = zip(self._packed_residues(data), self.data.primes, strict=True)
            return "REASON_COEFFICIENT" if any(max(row) >= prime for row, prime in rows) else ""
        is_seeded, words = len(data) == self.seeded_bytes, self.data.word_count
        if not is_seeded and len(data) != self.full_bytes:
            return "REASON_LENGTH"
        good = self.data.prefix(
            self.parms_id,
            words if is_seeded else 2 * words,
            is_values=False,
            behind=SEED_BYTES if is_seeded else 0,
        )
        parts = [(0, 16), (89, 113)]
        if is_seeded:
            good, parts = good + bytes(8 * words) + header(SEED_BYTES) + b"\1", [*parts, (-81, -64)]
            good += bytes(64)
        if not all(_equal_but_for_version(data[first:end], good[first:end]) for first, end in parts):
            return "REASON_HEADER"
        if data[16:48] != good[16:48]:
            return "REASON_PARAMETERS"
        if data[48:89] != good[48:89]:
            return "REASON_FORM"
        residues = struct.unpack_from(f"<{words if is_seeded else 2 * words}Q", data, 113)
        if any(residue >= self.data.primes[i // self.N % len(self.data.primes)] for i, residue in enumerate(residues)):
            return "REASON_COEFFICIENT"
        return "" if is_seeded or any(residues[words:]) else "REASON_TRANSPARENT"

    def polynomials(self, ciphertext: bytes) -> tuple[list[int], list[int]]:
        """The two polynomials modulo q of a good ciphertext."""
        end = 113 + 8 * self.data.word_count
        packed = self.is_packed(ciphertext)
        c0 = self._packed_residues(ciphertext) if packed else self.data.residues(ciphertext[113:end])
        if len(ciphertext) == self.full_bytes:
            c1 = self.data.residues(ciphertext[end:])
        else:
            c1 = expanded(ciphertext[32:96] if packed else ciphertext[-64:], self.data.primes, self.N)
        return composed(c0, self.data.primes), composed(c1, self.data.primes)

    def key_fault(self, byte_count: int, key_id: str, data: bytes) -> str:
        """The first reason of MalformedKey that holds for an upload; "" if it is good.

        Args:
            byte_count: as the header of the upload has it.
            key_id: as the header has it.
            data: all bytes of the upload.
        """
        words = self.keys.word_count
        if byte_count == 113 + 16 * words:
            return "REASON_UNSEEDED"
        if len(data) != byte_count:
            return "REASON_LENGTH"
        if hashlib.sha256(data).hexdigest() != key_id:
            return "REASON_DIGEST"
        good = self.keys.prefix(self.key_parms_id, words, is_values=True, behind=SEED_BYTES)
        end = 113 + 8 * words
        if len(data) != end + SEED_BYTES:
            return "REASON_FORMAT"
        headers = (data[:16], good[:16]), (data[89:113], good[89:113]), (data[end:-64], header(SEED_BYTES) + b"\1")
        if not all(_equal_but_for_version(*pair) for pair in headers) or data[48:89] != good[48:89]:
            return "REASON_FORMAT"
        if data[16:48] != good[16:48]:
            return "REASON_PARAMETERS"
        values = [struct.unpack_from(f"<{self.N}Q", data, 113 + 8 * self.N * k) for k in range(len(self.key_primes))]
        if any(max(row) >= prime for row, prime in zip(values, self.key_primes, strict=True)):
            return "REASON_COEFFICIENT"
        # The values of a constant are equal.
        return "REASON_DEGENERATE" if any(len(set(row)) == 1 for row in values) else ""


def is_of_this_version(data: bytes) -> bool:
    """Whether the headers of a ciphertext or a public key have the minor version 4."""
    headers = [at for at in (0, 89, len(data) - SEED_BYTES) if data[at : at + 4] == header(0)[:4]]
    return all(data[at + 4] == 4 for at in headers)


def _equal_but_for_version(found: bytes, good: bytes) -> bool:
    return found[:4] + found[5:] == good[:4] + good[5:] and found[4] <= 4
