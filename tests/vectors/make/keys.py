"""Keys of a ring, and encryption with them, of fixed randomness.

Nobody may use these keys for anything else: everybody has them.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.parameters import RINGS, EncryptionParameters, ParameterSet, key_parameters
from sealserve.he.public_key_format import pack_public_key
from sealserve.he.seal_format import SEED_BYTES, CiphertextFormat, pack_plaintext, restamp
from sealserve.secret_key import SecretKey
from tests.support.affine_models import Integers
from tests.support.blake2xb import expanded
from tests.support.ring import coefficients_of, values_of
from tests.vectors.make.fixed_randomness import integers, octets
from tests.vectors.make.json_text import json_text

NOISE = 21
DIGITS = {-1: "-", 0: "0", 1: "+"}


@dataclass(frozen=True)
class RingKeys:
    """The secret key of a ring and its public key.

    Attributes:
        name: of the ring, in `RINGS`.
    """

    name: str

    @cached_property
    def parameter_set(self) -> ParameterSet:
        """A set of the ring."""
        return ParameterSet(f"row-{self.name}", *RINGS[self.name])

    @cached_property
    def secret(self) -> NDArray[np.int64]:
        """The coefficients of the secret key, (N,): -1, 0 and 1."""
        return integers(f"secret key {self.name}", self.parameter_set.poly_modulus_degree, 1)

    @cached_property
    def values(self) -> list[Integers]:
        """The values of the secret key, (N,) for each prime."""
        return [values_of(self.secret.astype(object) % prime, prime) for prime in self.parameter_set.primes]

    @cached_property
    def secret_key(self) -> bytes:
        """SEAL's object of the secret key."""
        values = np.concatenate(self.values).astype(np.uint64)
        return restamp(pack_plaintext(values), _seal.key_parms_id(_seal.context(key_parameters(self.parameter_set))))

    @cached_property
    def public_key_noise(self) -> NDArray[np.int64]:
        """The noise of the public key, (N,)."""
        return integers(f"noise of the public key {self.name}", len(self.secret), NOISE)

    @cached_property
    def public_key(self) -> bytes:
        """The public encryption key: b = e - a s, in values, and the seed of a."""
        seed, primes = octets(f"seed of the public key {self.name}", SEED_BYTES), self.parameter_set.primes
        noise, of_a = self.public_key_noise.astype(object), expanded(seed, primes, len(self.secret)).astype(object)
        b = [
            (values_of(noise % prime, prime) - a * s) % prime
            for prime, a, s in zip(primes, of_a, self.values, strict=True)
        ]
        return pack_public_key(self.parameter_set, np.array(b).astype(np.uint64), seed)

    @property
    def public_key_id(self) -> str:
        """The id of the public key."""
        return hashlib.sha256(self.public_key).hexdigest()

    def sdk_key(self, folder: Path) -> SecretKey:
        """The key as the SDK holds it; it reads it from a file in the folder."""
        fields = {
            "format": "sealserve secret key 1",
            "name": self.parameter_set.name,
            "poly_modulus_degree": self.parameter_set.poly_modulus_degree,
            "primes": self.parameter_set.primes,
            "created": "2026-01-01T00:00:00+00:00",
            "secret_key": base64.b64encode(self.secret_key).decode(),
            "public_encryption_key": base64.b64encode(self.public_key).decode(),
        }
        path = folder / f"{self.name}.json"
        path.touch(0o600)
        path.write_text(json.dumps(fields))
        return SecretKey.load(path)

    def noise(self, label: str) -> NDArray[np.int64]:
        """The noise of the ciphertext of a label, (N,)."""
        return integers(f"noise {label}", len(self.secret), NOISE)

    def encrypt(self, parameters: EncryptionParameters, plaintext: NDArray[np.uint64], label: str, form: str) -> bytes:
        """Encrypt a plaintext (N,), with the randomness of a label: full, seeded or packed."""
        q, t, primes = parameters.parameter_set.modulus, parameters.plain_modulus, parameters.parameter_set.data_primes
        written = CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))
        seed = octets(f"seed {label}", SEED_BYTES)
        c1 = expanded(seed, primes, len(self.secret))
        scaled = (2 * q * plaintext.astype(object) + t) // (2 * t) + self.noise(label)
        c0 = np.array(
            [
                (scaled - coefficients_of(values_of(a, prime) * s % prime, prime)) % prime
                for prime, a, s in zip(primes, c1.astype(object), self.values, strict=False)
            ]
        ).astype(np.uint64)
        if form == "full":
            return written.pack(c0, c1.tobytes())
        return {"seeded": written.pack_seeded, "packed": written.pack_bits}[form](c0, seed)

    def files(self) -> dict[str, bytes]:
        """The files of the ring."""
        digits = "".join(DIGITS[digit] for digit in self.secret.tolist())
        ring = {
            "for_tests_only": "everybody has this secret key",
            "poly_modulus_degree": len(self.secret),
            "coeff_modulus": list(map(str, self.parameter_set.primes)),
            "key_parms_id": self.public_key[16:48].hex(),
            "secret_key": [digits[at : at + 128] for at in range(0, len(digits), 128)],
            "public_key_id": self.public_key_id,
            "public_key_noise_sha256": digest_of(self.public_key_noise),
        }
        return {
            "ring.json": json_text(ring),
            "secret_key.seal": self.secret_key,
            "public_key.seal": self.public_key,
        }


def digest_of(noise: NDArray[np.int64]) -> str:
    """The SHA-256 of noise, a signed byte a coefficient."""
    return hashlib.sha256(noise.astype(np.int8).tobytes()).hexdigest()
