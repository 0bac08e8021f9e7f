"""ReplyBits: the bits of a coefficient in a packed reply, and what their rounding costs.

A polynomial pair (c0, c1) of a reply modulo q is rounded to the moduli 2^k0 and 2^k and packed. Its
reader lifts both polynomials to a modulus q' of SEAL's, the product of the first data primes, and
decrypts. `sealserve.he.packed_polynomial` does both.

Let the *phase* c0 + c1 s be q y / t + v, y the scores modulo t. A rounded coefficient is off by at
most 1/2 + 2^-8 units, and a lifted one by 1/2. s has N coefficients -1, 0 or 1, so that c1 s is off
by at most N times as much. So the lifted phase is q' (y / t + v / q + d) with

    |d| <= (1 + 2^-7) (N / 2^(k + 1) + 1 / 2^(k0 + 1)) + (N + 1) / (2 q')

in units of the modulus. SEAL divides by q' / t and rounds, with a loss of 2^-57 of the distance of
two scores (`planning.noise` in the service). That is right if, in units of this distance,

    t |v| / q + t |d| < 1/2 - 2^-57
"""

from dataclasses import dataclass
from fractions import Fraction
from math import prod

from sealserve.he.bit_packing import packed_bytes
from sealserve.he.packed_polynomial import LOSS
from sealserve.he.parameters import EncryptionParameters

ROOM = Fraction(1, 2) - Fraction(1, 1 << 57)
"""What noise and roundings have to stay below, in units of the distance q / t of two scores."""

_SLACK = 1 + 2 * LOSS
"""By how much a rounding is off at most, in units of 1/2."""


def rounding(parameters: EncryptionParameters, bits: int, coefficients: int) -> Fraction:
    """Return what the rounding of a polynomial to 2^bits costs at most, in units of q / t.

    Args:
        parameters: of the reply.
        bits: k of c1, or k0 of c0.
        coefficients: how many meet in one of the phase: N of c1, 1 of c0.
    """
    return _SLACK * parameters.plain_modulus * coefficients / (1 << bits + 1)


def lifting(parameters: EncryptionParameters, prime_count: int) -> Fraction:
    """Return what the lift to the first data primes costs at most, in units of q / t."""
    lifted = prod(parameters.parameter_set.data_primes[:prime_count])
    return Fraction(parameters.plain_modulus * (parameters.parameter_set.poly_modulus_degree + 1), 2 * lifted)


@dataclass(frozen=True, kw_only=True)
class ReplyBits:
    """How the replies of an offer are packed. See ReplyBits in model.proto.

    Attributes:
        c0: k0, the bits of a coefficient of the first polynomial.
        c1: k, those of a coefficient of the second one.
        prime_count: to the product of so many data primes a reply is lifted.
    """

    c0: int
    c1: int
    prime_count: int

    def cost(self, parameters: EncryptionParameters) -> Fraction:
        """Return t |d| at most: what packing and lifting take of `ROOM`."""
        N = parameters.parameter_set.poly_modulus_degree
        of_rounding = rounding(parameters, self.c1, N) + rounding(parameters, self.c0, 1)
        return of_rounding + lifting(parameters, self.prime_count)

    def pair_bytes(self, places: int, poly_modulus_degree: int) -> int:
        """Return the length of a pair whose first polynomial has so many coefficients."""
        return packed_bytes(places, self.c0) + packed_bytes(poly_modulus_degree, self.c1)
