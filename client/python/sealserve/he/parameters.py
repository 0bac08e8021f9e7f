"""Parameters: the named sets, and the check that every set must pass, which is SEAL's tc128 table.

A *parameter set* is a ring degree N and primes. A secret key belongs to a parameter set. A
parameter set becomes *encryption parameters* with a plaintext modulus t, which belongs to a model
(BFV), or with a scale (CKKS). A ciphertext belongs to encryption parameters.
"""

import math
from dataclasses import dataclass
from enum import Enum

from sealserve.errors import ParameterError

# N -> the most bits that the product of all primes may have, for 128 bits of classical security
# with ternary secrets. Source: SEAL native/src/seal/util/hestdparms.h (seal_he_std_parms_128_tc),
# from the HomomorphicEncryption.org standard.
MAX_MODULUS_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}

# SEAL_COEFF_MOD_COUNT_MAX. Without a bound, multiplying as many primes as fit into a hostile
# message would take minutes.
MAX_PRIMES = 64
MAX_PRIME_BITS = 60  # SEAL_USER_MOD_BIT_COUNT_MAX
MAX_PLAIN_MODULUS_BITS = 60  # SEAL_PLAIN_MOD_BIT_COUNT_MAX


class Scheme(Enum):
    """The homomorphic encryption scheme."""

    BFV = "bfv"
    """Exact integers modulo t."""
    CKKS = "ckks"
    """Approximate complex numbers: N / 2 of them in a ciphertext, one in each slot."""


@dataclass(frozen=True)
class ParameterSet:
    """A checked ring degree with checked primes.

    Attributes:
        name: the name that clients and servers use.
        poly_modulus_degree: N, the number of coefficients of a polynomial.
        primes: the primes of the key level. If there are several, SEAL keeps the last for key
            switching.

    Raises:
        ParameterError: the set is malformed or below 128 bits of security.
    """

    name: str
    poly_modulus_degree: int
    primes: tuple[int, ...]

    def __post_init__(self) -> None:
        N = self.poly_modulus_degree
        if N not in MAX_MODULUS_BITS:
            raise ParameterError(f"{self.name}: degree {N} is not one of {', '.join(map(str, MAX_MODULUS_BITS))}")
        if not 1 <= len(self.primes) <= MAX_PRIMES or len(set(self.primes)) != len(self.primes):
            raise ParameterError(f"{self.name}: the primes must be distinct, at least one and at most {MAX_PRIMES}")
        for prime in self.primes:
            if prime.bit_length() > MAX_PRIME_BITS or prime <= 1 or prime % (2 * N) != 1:
                raise ParameterError(f"{self.name}: {prime} is not 1 modulo 2N or has over {MAX_PRIME_BITS} bits")
        bits = math.prod(self.primes).bit_length()
        if bits > MAX_MODULUS_BITS[N]:
            raise ParameterError(
                f"{self.name}: {bits} bits of modulus at degree {N} are below 128 bits of security; "
                f"the most is {MAX_MODULUS_BITS[N]}"
            )

    def shares_ring(self, other: "ParameterSet") -> bool:
        """Tell whether keys of the other set are keys of this one.

        N and the primes count, not the names.
        """
        return (self.poly_modulus_degree, self.primes) == (other.poly_modulus_degree, other.primes)

    @property
    def data_primes(self) -> tuple[int, ...]:
        """The primes for which a fresh ciphertext has residues."""
        return self.primes[:-1] or self.primes

    @property
    def modulus(self) -> int:
        """q, the product of the data primes."""
        return math.prod(self.data_primes)

    @property
    def polynomial_bytes(self) -> int:
        """The bytes of one polynomial: a 64-bit residue for each data prime and coefficient."""
        return 8 * len(self.data_primes) * self.poly_modulus_degree


@dataclass(frozen=True)
class EncryptionParameters:
    """A parameter set with what its scheme needs in addition. A ciphertext belongs to these.

    Attributes:
        plain_modulus: t (BFV). 0 for CKKS.
        scale: the factor by which the numbers in a fresh ciphertext are multiplied (CKKS). 1 for
            BFV.

    Raises:
        ParameterError: t or the scale does not fit the scheme, exceeds SEAL's bounds, or is not
            below q.
    """

    parameter_set: ParameterSet
    plain_modulus: int = 0
    scheme: Scheme = Scheme.BFV
    scale: float = 1.0

    def __post_init__(self) -> None:
        name = self.parameter_set.name
        t = self.plain_modulus
        q = self.parameter_set.modulus
        if self.scheme is Scheme.CKKS:
            if t != 0 or not 1 <= self.scale < q:  # refuses a NaN, too
                raise ParameterError(
                    f"{name}: CKKS takes no plaintext modulus, and a scale of at least 1 and below the ciphertext "
                    f"modulus; these are {t} and {self.scale}"
                )
        elif not 2 <= t < q or t.bit_length() > MAX_PLAIN_MODULUS_BITS or self.scale != 1:
            raise ParameterError(
                f"{name}: BFV needs a plaintext modulus within 2..2^{MAX_PLAIN_MODULUS_BITS} and below the "
                f"ciphertext modulus, and scale 1; these are {t} and {self.scale}"
            )


def key_parameters(parameter_set: ParameterSet) -> EncryptionParameters:
    """Return the encryption parameters for which the keys of a set are made: those of t = 2.

    A key does not depend on t, so that one key serves every model of its ring. But SEAL stamps the
    key with a parms_id, which does depend on t.
    """
    return EncryptionParameters(parameter_set, plain_modulus=2)


RINGS = {
    "2048-44": (2048, (0xFFFFFFFC001,)),
    "2048-54": (2048, (0x3FFFFFFFFED001,)),
    "4096-60": (4096, (0xFFFFFFFFFFFC001,)),
    "4096-92": (4096, (0x3FFFFFF70001, 0x3FFFFFF84001, 0x1C001)),
    "8192-120": (8192, (0xFFFFFFFFFFFC001, 0xFFFFFFFFFFE8001, 0x1C001)),
    "8192-180": (8192, (0xFFFFFFFFFFFC001, 0xFFFFFFFFFFE8001, 0xFFFFFFFFFFD8001, 0x1C001)),
}
"""The rings that layouts of BFV share: degree and primes, by degree and bits of q.

They are in ascending order of cost. Their data primes are the greatest ones of their number of bits
that are 1 modulo 2N. SEAL keeps the last of several primes for key switching. These layouts do not
use it: it is small, because it only has to exist.

A prime of any size takes 64 bits in full and seeded ciphertexts, and as much time. One of up to 51
bits takes fewer bits in packed ciphertexts (`seal_format`). 2048-44 is for that: trees, counts and
many models of few features have weights that it holds, and are sent in a third fewer bytes. Rings
of 40 and of 48 bits were tried. The former holds few models that 44 bits hold, and saves another
5 %; the latter saves less than a fifth of a row's bytes, up and down. Rings of 60 bits and more
have as many bits as primes can have, but for 4096-92, which has as many as are secure.

A smaller modulus at one degree only adds to security. Secrets are ternary and noise has a standard
deviation of 3.24 in each ring, and attacks on lattices are the harder the larger the noise is
beside the modulus. At 2048 the HomomorphicEncryption.org standard allows 54 bits for 128 bits of
classical security, 37 for 192 and 29 for 256. The primal attack takes 2^130 operations with 54 bits
and 2^163 with 44 (`planning.lattice` in the service).

At 4096 a special prime of 16 bits, 0xa001, would free 1.7 bits of q for one more bit of the weights
of private models, and take an eighth off what a private reply may tell (`planning.hiding` in the
service). At 8192 there is none, and no want of bits: data primes have 60 at most. Two of 51 bits
would save a fifth of the bytes of models that need 8192-120 for single rows, but their batches need
8192-120 all the same, and a client would have to register a second key.
"""
