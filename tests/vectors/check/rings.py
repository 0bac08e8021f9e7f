"""Rings: a secret key, and the public encryption key that belongs to it."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.vectors.check.files import read_json
from tests.vectors.check.polynomials import centred, coefficients_of, values_of
from tests.vectors.check.seal_objects import Parameters, header, is_of_this_version
from tests.vectors.check.seeds import expanded

_DIGITS = {"-": -1, "0": 0, "+": 1}


@dataclass(frozen=True)
class Keys:
    """The keys of a ring.

    Attributes:
        parameters: of the ring, with t = 2.
        secret: the coefficients of the secret key: -1, 0 and 1.
        public_key: the bytes of the public encryption key.
    """

    parameters: Parameters
    secret: list[int]
    public_key: bytes

    @classmethod
    def read(cls, folder: Path) -> "Keys":
        """Read the keys of a ring."""
        ring = read_json(folder / "ring.json")
        primes = tuple(map(int, ring["coeff_modulus"]))
        secret = [_DIGITS[digit] for digit in "".join(ring["secret_key"])]
        parameters = Parameters(ring["poly_modulus_degree"], primes, max(1, len(primes) - 1), 2, b"")
        return cls(parameters, secret, (folder / "public_key.seal").read_bytes())

    @property
    def public_key_id(self) -> str:
        """The id of the public key."""
        return hashlib.sha256(self.public_key).hexdigest()

    def fits(self, parameters: Parameters) -> bool:
        """Whether they are keys of these parameters."""
        mine = self.parameters
        return (mine.N, mine.key_primes) == (parameters.N, parameters.key_primes)


def check(folder: Path) -> None:
    """Check the vector of a ring's keys."""
    ring, keys = read_json(folder / "ring.json"), Keys.read(folder)
    parameters, N = keys.parameters, keys.parameters.N
    assert len(keys.secret) == N
    assert parameters.key_parms_id.hex() == ring["key_parms_id"]
    assert keys.public_key_id == ring["public_key_id"]
    assert is_of_this_version(keys.public_key)
    assert not parameters.key_fault(len(keys.public_key), keys.public_key_id, keys.public_key)
    b = parameters.keys.residues(keys.public_key[113:-81])
    a = expanded(keys.public_key[-64:], parameters.key_primes, N)
    digests, secret_values = set(), list[int]()
    for prime, of_b, of_a in zip(parameters.key_primes, b, a, strict=True):
        s = values_of([c % prime for c in keys.secret], prime)
        secret_values += s
        values = [(x + y * z) % prime for x, y, z in zip(of_b, of_a, s, strict=True)]
        noise = [centred(e, prime) for e in coefficients_of(values, prime)]
        assert max(map(abs, noise)) <= 21
        digests.add(hashlib.sha256(bytes(e % 256 for e in noise)).hexdigest())
    assert digests == {ring["public_key_noise_sha256"]}
    assert (folder / "secret_key.seal").read_bytes() == _seal_key(parameters, secret_values)


def _seal_key(parameters: Parameters, values: list[int]) -> bytes:
    """SEAL's object of a secret key."""
    count = len(values)
    inner = 24 + 8 * count
    members = parameters.key_parms_id + struct.pack("<Qd", count, 1.0)
    words = struct.pack(f"<Q{count}Q", count, *values)
    return header(16 + len(members) + inner) + members + header(inner) + words
