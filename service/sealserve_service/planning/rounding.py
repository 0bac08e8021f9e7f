"""Rounding: the bits of packed replies, and the room that plans leave for it.

`sealserve.he.reply_bits` derives what packing a reply to k0 and k bits costs, and what the lift to
q' costs with which its reader decrypts. With V the most noise of a reply modulo q, scores are exact
if

    t V / q + (1 + 2^-7) (t N / 2^(k + 1) + t / 2^(k0 + 1)) + t (N + 1) / (2 q') < 1/2 - 2^-57

Of all k0 and k for which that holds with q' = q, and which `sealserve.he.bit_packing` allows, the
shortest reply has the ones that are taken. The primes of q' are then the fewest for which it still
holds: decryption takes half the time with half of them.

The first term is that of the plan. In mode open V is 21.5 A' + 1/2. Without a bound below q / 2t it
would take all the room of a plan that fills q, and bits without end. So a quarter of the room is
reserved, with which log2 t + log2 N + 3 bits suffice. A' is a quarter less at most. That costs
plans that would fill q: the proven error of MNIST's single rows is 0.76 instead of 0.66. Of 18
plans for nine models it is 0.56 to 1.14 times as large, 0.94 times in the mean: other steps are
chosen. On a given grid, where weights have whole bits, a plan may lose one: MNIST's on 255 levels
has 13 instead of 14, and twice the error of weights.

A reply of mode open is not packed if that saves less than an eighth of its bytes, or if the lift
has no room: then t N is about as large as q, or more. Such a plan has nothing to reserve. In mode
private V follows from q and t alone (see `hiding`), so that the bits tell nothing of A'; and the
packed form is the only one.
"""

import math
from fractions import Fraction

from sealserve.he.bit_packing import MAX_BITS, MIN_BITS, possible_bits
from sealserve.he.packed_polynomial import MAX_PRIMES
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.reply_bits import ROOM, ReplyBits, lifting, rounding
from sealserve_service.planning.noise import FRESH_NOISE_TIMES_TWO

_RESERVED = Fraction(1, 4)
"""Of the room of a plan with open weights that packs its replies."""

_LEAST_SAVING = Fraction(1, 8)
"""Of the bytes of a reply of residues."""

_TRIED = 12
"""How many k are tried: beyond that c0 saves nothing more."""


def reply_bits(parameters: EncryptionParameters, places: int, noise: Fraction) -> ReplyBits | None:
    """Return the bits of the shortest reply that decrypts right; None if no reply does.

    Args:
        parameters: of the ciphertexts.
        places: how many coefficients of c0 a pair of the reply keeps.
        noise: t V / q.
    """
    parameter_set = parameters.parameter_set
    N, prime_count = parameter_set.poly_modulus_degree, len(parameter_set.data_primes)
    room = ROOM - noise - lifting(parameters, prime_count)
    if room <= 0 or prime_count > MAX_PRIMES:
        return None
    least = _least_bits(rounding(parameters, 0, N), room)
    found = []
    for c1 in range(least, min(least + _TRIED, MAX_BITS + 1)):
        c0 = _least_bits(rounding(parameters, 0, 1), room - rounding(parameters, c1, N))
        if c0 <= c1 and c1 == possible_bits(c1):
            found.append((places * c0 + N * c1, c0, c1))
    if not found:
        return None
    _, c0, c1 = min(found)
    each = (ReplyBits(c0=c0, c1=c1, prime_count=count) for count in range(1, prime_count + 1))
    return next(bits for bits in each if noise + bits.cost(parameters) < ROOM)


def _least_bits(cost_of_none: Fraction, room: Fraction) -> int:
    """Return the fewest possible bits for which what rounding costs is below the room."""
    return possible_bits(max(MIN_BITS, int(cost_of_none / room).bit_length()))


def open_reply_bits(parameters: EncryptionParameters, places: int, noise_times_two: int) -> ReplyBits | None:
    """Return how a plan with open weights packs its replies; None if it does not.

    Args:
        parameters: of the ciphertexts.
        places: as of `reply_bits`.
        noise_times_two: 2 V.
    """
    bits = reply_bits(parameters, places, _share(parameters, noise_times_two))
    return bits if bits is not None and _pays(parameters, places, bits) else None


def open_noise(parameters: EncryptionParameters, places: int) -> int:
    """Return the most 2 V that a plan with open weights may have.

    Args:
        parameters: of the ciphertexts.
        places: as of `reply_bits`.
    """
    room = ROOM * (1 - _RESERVED)
    bits = reply_bits(parameters, places, room)
    if bits is None or not _pays(parameters, places, bits):
        room = ROOM
    # The greatest integer below 2 q room / t.
    return math.ceil(2 * parameters.parameter_set.modulus * room / parameters.plain_modulus) - 1


def largest_absolute_sum(parameters: EncryptionParameters, places: int) -> int:
    """Return the largest A' that `open_noise` leaves room for; negative if none.

    Args:
        parameters: of the ciphertexts.
        places: as of `reply_bits`.
    """
    return (open_noise(parameters, places) - 1) // FRESH_NOISE_TIMES_TWO


def _share(parameters: EncryptionParameters, noise_times_two: int) -> Fraction:
    """Return t V / q."""
    return Fraction(parameters.plain_modulus * noise_times_two, 2 * parameters.parameter_set.modulus)


def _pays(parameters: EncryptionParameters, places: int, bits: ReplyBits) -> bool:
    """Tell whether packed replies are enough shorter than residues."""
    parameter_set = parameters.parameter_set
    N = parameter_set.poly_modulus_degree
    packed = places * bits.c0 + N * bits.c1
    return packed <= (1 - _LEAST_SAVING) * 64 * len(parameter_set.data_primes) * (places + N)
