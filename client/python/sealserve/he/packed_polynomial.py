"""Packed polynomials: rounded from a modulus q to one of 2^b, packed to the bit; and lifted again.

A coefficient c modulo q becomes round(2^b c / q) modulo 2^b, and such a coefficient c' becomes
round(q' c' / 2^b) modulo q', the product of some primes. But for the roundings this changes the
unit of a polynomial and nothing else: c / q, c' / 2^b and the lifted coefficient divided by q' are
the same fraction of 1, modulo 1. `bit_packing` says where the bits of c' lie.

Rounding. With r the residue of c modulo a prime p, and w the inverse of q / p modulo p, the sum of
r w / p over all primes is c / q, modulo 1. `PolynomialPacker` computes this sum in a unit of 2^-64,
or of 2^-(b - 16) if c' has two digits. 2^64 units are a multiple of 1 and do not count. In this
unit w / p is f + g with an integer f and |g| <= 1/2. The sum of r f is exact, modulo 2^64. The sum
of r g is computed in float64: r, g, their product, and each sum but the first are rounded, by 2^-53
of their size at most. k summands, together at most half the sum of the p, lose less than

    (k + 3) 2^-54 sum p

units. Where that is too much, r is split into two pieces of 30 bits or three of 20. Each piece
takes the place of a residue, with w times 1, 2^20 and so on in the place of w, and with 2^20 in the
place of the bound p. Then the sum of r g is cut: with one digit to an integer, which loses a unit;
with two to a multiple of 2^-32 units. Half of 2^-b is added to the whole, and what is below 2^-b is
cut off. As long as the losses are at most 2^-8 2^-b, the coefficient is off by at most

    1/2 + 2^-8

With one digit that is so without a split for two primes of 46 bits, and for three primes of 60 bits
with b up to 45; with two pieces always. With two digits it takes three pieces. All this holds for
up to MAX_PRIMES primes.

Lifting is exact. Let m = c' q' / p mod 2^b for a prime p of q'. Then

    round(q' c' / 2^b) = round(p m / 2^b)   (mod p)

With u = q' c' + 2^(b - 1) mod 2^b, which is p m + 2^(b - 1) mod 2^b too, 2^b times the left side is
q' c' + 2^(b - 1) - u, and 2^b times the right side p m + 2^(b - 1) - u. Both are 2^(b - 1) - u
modulo p. The right side is at most p, and p stands for 0. `PolynomialUnpacker` multiplies m by p as
is done by hand: a digit x of d bits, times p, plus the last carry, is 2^d times the next carry plus
a digit of the product. To round, 2^(d - 1) is added at the last digit. The next carry is estimated
in float64, as x p / 2^d. The estimate is off by up to 3 2^-53 2^60 for three roundings, 1 for its
own fraction, and (2^60 + 2^(d - 1)) / 2^d for what was added. 2^d times all that is below 2^63 for
d up to DIGIT_BITS. So the difference between the product and 2^d times the estimate, which integers
modulo 2^64 hold, says how far the estimate is off. m comes from c' with the same steps: c' times
the other primes of q', if there are any, without the last carry.

Without primes nothing is rounded and nothing is lifted: coefficients of b bits, which are one digit
each, are packed and unpacked as they are.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ReplyError
from sealserve.he.bit_packing import GROUP, digit_count, runs

MAX_PRIMES = 5
"""The most primes from which `PolynomialPacker` rounds within its bound."""

LOSS = Fraction(1, 1 << 8)
"""By how much a packed coefficient is off at most, beside the 1/2 of every rounding."""

COEFFICIENTS_A_CALL = 3 << 12
"""How many coefficients to pack or unpack at once: what is computed of more leaves the caches."""

_RESIDUE_BITS = 60
_GUARD_BITS = 16  # a unit has so many bits more than 2^-b, and then 32 of its fraction are kept
_SPARE_BYTES = 8  # a word may begin in the last byte of a group


class PolynomialPacker:
    """Rounds coefficients modulo a product of primes to b bits, and packs them.

    Threads may share it.

    Args:
        primes: at most MAX_PRIMES, of at most 60 bits; none to pack without rounding.
        bits: b, within the bounds of `bit_packing`.
        most: how many coefficients a polynomial has at most.
    """

    def __init__(self, primes: tuple[int, ...], bits: int, most: int) -> None:
        self._bits, self._digit_count = bits, digit_count(bits)
        self._digit_bits = size = bits // self._digit_count
        unit, cut = (64, Fraction(1)) if self._digit_count == 1 else (bits - _GUARD_BITS, Fraction(1, 1 << 32))
        piece_bits = _piece_bits(primes, LOSS * Fraction(2) ** (unit - bits) - cut)
        self._piece_mask = None if piece_bits == _RESIDUE_BITS else np.int64((1 << piece_bits) - 1)
        # Of each piece: the index of its prime, its first bit, f and g.
        self._pieces = list[tuple[int, np.int64, np.int64, float]]()
        for index, prime in enumerate(primes):
            inverse = pow(math.prod(primes) // prime, -1, prime)
            for at in range(0, _RESIDUE_BITS, piece_bits):
                share = Fraction((inverse << at) % prime << unit, prime)
                f = np.uint64(round(share) % (1 << 64)).astype(np.int64)
                self._pieces.append((index, np.int64(at), f, float(share - round(share))))
        self._half = np.int64(1 << 63 - size if self._digit_count == 1 else 0)
        self._below = np.uint64(64 - size)
        self._runs = runs(size)
        shifts = [shift for run in self._runs for shift in run.shifts]
        # By how much digits are shifted: in their own words, to the right in the word of the next
        # digit, to the left in those of the digits before.
        group_count = -(-most * self._digit_count // GROUP)
        self._own = np.array(shifts * group_count, np.uint64)
        self._next = np.array([size - shifts[place - 7] for place in range(GROUP)] * group_count, np.uint64)
        self._before = [
            np.array([shifts[place - back] + back * size for place in range(GROUP)] * group_count, np.uint64)
            for back in range(1, -(-64 // size))
        ]

    def pack(self, residues: NDArray[np.uint64]) -> bytes:
        """Pack a polynomial, residues (primes, n); without primes (1, n), below 2^b."""
        (packed,) = self.pack_all(residues[None])
        return packed

    def pack_all(self, residues: NDArray[np.uint64]) -> list[bytes]:
        """Pack polynomials, residues (polynomials, primes, n); without primes 1 in their place.

        A NumPy call for all of them takes little longer than one for a single short polynomial.
        """
        signed = residues.view(np.int64)
        total: Any = None
        rests: Any = None
        for index, at, f, g in self._pieces:
            piece = signed[:, index]
            if self._piece_mask is not None:
                piece = piece >> at & self._piece_mask
            if rests is None:
                total, rests = piece * f, piece * g
                total += self._half
            else:
                total += piece * f
                rests += piece * g
        if not self._pieces:
            digits = residues[:, 0]
        elif self._digit_count == 1:
            total += rests.astype(np.int64)
            digits = total.view(np.uint64) >> self._below
        else:
            digits = self._two_digits(total, rests)
        count, size = -(-digits.shape[1] // GROUP) * GROUP, self._digit_bits
        if count > digits.shape[1]:  # a polynomial begins with a group
            of_groups = np.zeros((len(digits), count), np.uint64)
            of_groups[:, : digits.shape[1]] = digits
            digits = of_groups
        words = (digits << self._own[:count]).reshape(-1)
        words[1:] |= (digits >> self._next[:count]).reshape(-1)[:-1]
        for back, shifts in enumerate(self._before, 1):
            words[:-back] |= (digits << shifts[:count]).reshape(-1)[back:]
        groups = words.reshape(-1, GROUP)
        packed = np.empty(len(groups) * size + _SPARE_BYTES, np.uint8)
        for run in self._runs:
            target = np.ndarray((len(groups), run.place_count), np.uint64, packed.data, run.offset, (size, size // 8))
            target[...] = groups[:, run.places]
        byte_count, data = -(-residues.shape[2] * self._bits // 8), packed.tobytes()
        return [data[first : first + byte_count] for first in range(0, len(groups) * size, count // GROUP * size)]

    def _two_digits(self, total: NDArray[np.int64], rests: NDArray[np.float64]) -> NDArray[np.uint64]:
        """Round total + rests (polynomials, n), in units of 2^-(b - 16), to digits: (..., 2 n)."""
        whole = np.floor(rests)
        # 2^32 upper + lower, in units of 2^-(b + 16), with half of 2^-b.
        lower = ((rests - whole) * 2.0**32).astype(np.uint64) + np.uint64(1 << _GUARD_BITS - 1)
        upper = (total + whole.astype(np.int64)).view(np.uint64) + (lower >> np.uint64(32))
        lower &= np.uint64((1 << 32) - 1)
        digits = np.empty((*total.shape, 2), np.uint64)
        digits[..., 0] = upper << np.uint64(32 - _GUARD_BITS) | lower >> np.uint64(_GUARD_BITS)
        digits[..., 1] = upper >> np.uint64(self._digit_bits + _GUARD_BITS - 32)
        digits &= np.uint64((1 << self._digit_bits) - 1)
        return digits.reshape(len(total), -1)


class PolynomialUnpacker:
    """Unpacks coefficients of b bits, and lifts them to a product of primes.

    Threads may share it.

    Args:
        primes: of at most 60 bits; none to unpack without lifting.
        bits: b, within the bounds of `bit_packing`.
        most: how many coefficients a polynomial has at most.
    """

    def __init__(self, primes: tuple[int, ...], bits: int, most: int) -> None:
        self._bits, self._digit_count = bits, digit_count(bits)
        self._digit_bits = size = bits // self._digit_count
        self._runs = runs(size)
        shifts = [shift for run in self._runs for shift in run.shifts]
        self._shifts = np.array(shifts * -(-most * self._digit_count // GROUP), np.int64)
        self._mask, self._carry_at = np.int64((1 << size) - 1), np.int64(size)
        # Of each prime: the other ones, and itself; each with what its carries are estimated from,
        # and with what is added to round at each digit.
        zeros, half = [0] * self._digit_count, [0] * (self._digit_count - 1) + [1 << size - 1]
        self._factors = [
            [(np.int64(f), f / (1 << size), zeros) for f in primes if f != p] + [(np.int64(p), p / (1 << size), half)]
            for p in primes
        ]

    def unpack(self, data: bytes, count: int) -> NDArray[np.uint64]:
        """Unpack a polynomial of so many coefficients: residues (primes, count).

        Without primes it is (1, count). It raises what `unpack_all` raises.
        """
        residues: NDArray[np.uint64] = self.unpack_all([data], count)[0]
        return residues

    def unpack_all(self, polynomials: Sequence[bytes], count: int) -> NDArray[np.uint64]:
        """Unpack polynomials of so many coefficients each: residues (polynomials, primes, count).

        Without primes there is 1 in their place.

        Raises:
            ReplyError: it is not their length, or a bit behind the last coefficient is set.
        """
        spare_bits, size = -count * self._bits % 8, self._digit_bits
        byte_count = -(-count * self._bits // 8)
        for data in polynomials:
            if len(data) != byte_count or (spare_bits and data[-1] >> 8 - spare_bits):
                raise ReplyError
        groups_each = -(-count * self._digit_count // GROUP)
        group_count = len(polynomials) * groups_each
        padded = bytes(groups_each * size - byte_count).join((*polynomials, bytes(_SPARE_BYTES)))
        groups = np.empty((group_count, GROUP), np.int64)
        for run in self._runs:
            words = np.ndarray((group_count, run.place_count), np.int64, padded, run.offset, (size, size // 8))
            groups[:, run.places] = words
        unpacked = groups.reshape(len(polynomials), -1)
        unpacked >>= self._shifts[: unpacked.shape[1]]
        digits_of = unpacked[:, : count * self._digit_count].reshape(len(polynomials), count, -1).transpose(2, 0, 1)
        if not self._factors:
            digits_of &= self._mask
            return digits_of.view(np.uint64).swapaxes(0, 1)
        residues = np.empty((len(polynomials), len(self._factors), count), np.uint64)
        for residue, factors in zip(residues.swapaxes(0, 1), self._factors, strict=True):
            digits: list[NDArray[np.int64]] = list(digits_of)
            for factor, ratio, added in factors:
                carry: Any = 0
                for index, digit in enumerate(digits):
                    digit &= self._mask  # what lies behind it in its word, or its carry, ends here
                    product = digit * factor
                    product += carry + added[index]
                    carry = (digit * ratio).astype(np.int64)
                    product -= carry << self._carry_at
                    carry += product >> self._carry_at
                    digits[index] = product
            # The last factor is the prime. Of a carry below it the difference wraps around.
            lifted = carry.view(np.uint64)
            np.minimum(lifted, lifted - np.uint64(factor), out=residue)
        return residues


def _piece_bits(primes: tuple[int, ...], most: Fraction) -> int:
    """Return how long pieces of residues may be if the sum of r g is to lose so much at most."""

    def loss(pieces: int) -> Fraction:
        bounds = [min(prime, 1 << _RESIDUE_BITS // pieces) for prime in primes * pieces]
        return Fraction((len(bounds) + 3) * sum(bounds), 1 << 54)

    return next(_RESIDUE_BITS // pieces for pieces in (1, 2, 3) if loss(pieces) <= most)
