"""Hiding: what a private reply adds so that it tells the scores and nothing else of the weights.

The reply to (c0, c1) is W (c0, c1), with the intercept, plus an encryption of zero under the
client's public key, plus uniform noise on the coefficients of c0 that hold scores. The reply has no
other coefficients of c0. Modulo q, with the phase c0 + c1 s, the key's owner reads the whole of
c1' = W c1 + a u + e1 and, at each place of a score,

    phase = q y / t + W v + beta + z + r

Here y is the score modulo t; v the noise of the client's ciphertext; beta the rounding of the
intercept; z = e u + e0 + e1 s the noise of the encryption of zero; r the uniform noise, an integer
of -B .. B. (W takes q m / t to q (W m) / t, and only the residue of W m modulo t counts.)

Width. Let the *ideal* phase be round(q y / t) + r: a function of the score and of nothing else. The
phase is the ideal one shifted by f, an integer. With A' the sum of |w| over all plaintext
coefficients that enter one result, and the bounds of `noise`,

    |f| <= 21.5 A' + 1/2 (beta) + 1/2 (the ideal's rounding) + |z|
    F = floor(21.5 A') + 1 + zero_noise

r is drawn independently of all that f depends on: model, features, key, v, u, e0, e1. Given these,
the statistical distance of a phase to the ideal one is that of uniform noise to itself shifted by
f: |f| / (2 B + 1). Distances of independent coefficients add up (at most): over the n scores of a
reply n F / (2 B + 1). A plan hides with lambda bits when

    2^lambda n F <= 2 B + 1

That holds for every v within its bound, not just on average. Residues modulo q take distributions
no further apart. Over replies distances add up, even if the questions are equal: after k replies
k 2^-lambda. Replies of two models with equal scores are twice as far from each other.

B is not the least width that hides. It is as wide as fits, and a function of q and t alone:

    B = floor(15 q / (32 t)) - (1 + zero_noise)

that is 15/16 of what decryption takes, less F's fixed share. So the size of the noise tells nothing
of A', and a ciphertext that is not what it should be gets the fewest bits (see below). The last
sixteenth is for the noise of the product, 1/16 of it, and for the rounding of the reply, the rest.
A whole bit less, B of about q / 4t, would take lambda below 40 in plans that keep it now.

c1'. With the ideal phase, c0' at the kept places is the phase minus (c1' s) there: a function of
the score, r and c1'. What is left of W, u, e0 and e1 is c1' = W c1 + (a u + e1). Here a u + e1 is a
Ring-LWE sample whose secret u is drawn anew for each polynomial pair and kept by nobody. Knowing s
and e does not help: they are independent of u. The sample's modulus is the key's, P q; its noise is
SEAL's; u is ternary as s is. Whoever tells it from a uniform polynomial solves Ring-LWE at the
parameters that protect the features, 128 bits by the tc128 table. (Division by P takes uniform
polynomials to uniform ones.) So the hiding is statistical in c0, and computational in c1.

When u, e0 and e1 are drawn does not matter: they may be drawn before (c0, c1) arrive
(`ready_zeros`), of which they are independent either way. But each pair takes its own. The
difference of two c1' with the same ones is W times the difference of the two c1, and tells W.

Why each part is there. Without the encryption of zero, c1' / c1 is W. Without the noise, phases
give W v, with v known to the key's owner: an equation on W for each score. As the noise drowns z
too, phases are no equations on u. The dropped coefficients of c0 would need noise of their own, and
nobody needs them.

Premises: the key's a is uniform (keys are taken in seeded form only, and nobody chooses what the
generator makes of a seed: see `sealserve.he.public_key_format`) and its e is SEAL's; c0 and c1 are
SEAL's symmetric encryption.
What an offer publishes is not hidden: t, the centres and radii of the scores and the error bounds
are sums over the weights.

Packing. Before it travels, the reply is rounded to fewer bits and packed (`rounding`). What is sent
is a function of the reply that is described here, and of public numbers. So it tells nothing that
this reply does not tell, and statistical distances are no greater. Nothing is claimed of what the
rounding hides by itself. Its bits follow from q, t, N and the places of a pair: a bound on the
product's noise takes the place of A'.

Exactness. The error of the phase, before it is rounded, is at most 21.5 A' + 1/2 + zero_noise + B.
Plans keep it within

    V = (15/32 + 1/512) q / t

and `rounding` chooses bits that are exact for this V. With the width above that asks for
43 t A' <= q / 256, about. Hiding asks for more as soon as 2^lambda n is above 480, which is
2^lambda n t 43 A' < 15/8 q, about. In bits:

    log2 q > log2 t + log2 A' + log2 n + lambda + 4.52

so that the price of hiding is lambda + log2 n - 0.9 bits.

What a client gets that does not keep to the protocol. It chooses (c0, c1), and the b of its key; a
is the expansion of a seed, which nobody chooses. A kept coefficient of c0' is x + r (mod q), where
x is what the client has made of W, u and e0, and r is uniform over 2 B + 1 integers. The entropy of
the sum is at most log2 q, and given x it is log2 (2 B + 1). So the coefficient tells at most

    log2 (q / (2 B + 1)),   about log2 t + 0.1 bits

of (W, u, e0), whatever b, c0 and c1 are, and the coefficients of a reply tell at most as many times
that (`told_bits`). It is what the scores of an honest item may tell, except that the client chooses
the function.

All of it may be spent on u: with b = sum_j round(P q / 3^(j + 1)) X^j a coefficient spells out some
15 coefficients of u. u unmasks c1', which tells all weights of its pair. Therefore the planner caps
the places of a pair in rows. u is uniform: its N coefficients have log2(3) bits each, and no
integer linear form of them has less. So what is told is worth to an attacker what told_bits /
log2(3) known coefficients are, and what protects c1' is Ring-LWE with the others unknown. The cap
is such that the unknown ones are worth 128 bits:

    places log2 (q / (2 B + 1)) < log2(3) (N - n128)

n128 is the least dimension that is worth 128 bits at the pair's modulus and noise, by the primal
estimate (`lattice`). The pair's modulus is q, not P q: division by P rounds c1', and that rounding
is noise of deviation 1 / sqrt(12). Relative to the modulus it is 10,000 times SEAL's noise. That
makes room for hints: all N coefficients are worth 148 bits at 4096-92, 244 at 8192-120, 155 at
8192-180. u is drawn anew for each pair, so that hints of several pairs do not add up. An attacker
who waits for the luckiest of k pairs gains about log2 k bits, of a cap of 800 or more. The bits
that are told are proven. What the others are worth is an estimate, as the table of tc128 is.

An item of more than `features` rows determines the weights honestly, and needs no cap. So the rows
of an offer are capped unless items below the cap reach `features` rows: then every item is either
below the cap or above `features`.

Columns have no cap. A full batch has N places a pair, which may tell some 20 times the bits of u,
and a batch of more than `features` rows determines the weights anyhow. A client that does not keep
to the protocol gets them with fewer rows: what is promised of columns is promised against clients
that keep to the protocol only. Two mends were priced: masks of 21 to 23 encryptions of zero, under
as many independent keys, take 43 ms a class; pairs of 300 places take 1.7 KB a row.
"""

import math
from fractions import Fraction
from functools import cache

from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.reply_bits import ReplyBits
from sealserve_service.planning import lattice, noise
from sealserve_service.planning.rounding import reply_bits

_WIDTH_SHARE = Fraction(15, 32)
_NOISE_SHARE = _WIDTH_SHARE + Fraction(1, 512)
"""t V / q: what the noise of a reply may take, of 1/2."""

DEFAULT_HIDING_BITS = 40

SECURITY_BITS = 128
"""What has to protect a pair's c1' when all that its places tell is known."""

TERNARY_BITS = math.log2(3)
"""The entropy of a coefficient of u."""


def largest_shift(parameter_set: ParameterSet, absolute_sum: int) -> int:
    """Return F: how far a phase is from the ideal one at most, without the uniform noise.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A'.
    """
    return noise.FRESH_NOISE_TIMES_TWO * absolute_sum // 2 + _fixed_shift(parameter_set)


def _fixed_shift(parameter_set: ParameterSet) -> int:
    """Return the share of F that no weight has a part in."""
    return 1 + noise.zero_noise(parameter_set)


def noise_width(parameters: EncryptionParameters) -> int:
    """Return B, the width of the uniform noise: as wide as fits.

    It is below 0 where q has no room for any.
    """
    q, t = parameters.parameter_set.modulus, parameters.plain_modulus
    return int(_WIDTH_SHARE * q / t) - _fixed_shift(parameters.parameter_set)


def hides(
    parameter_set: ParameterSet,
    absolute_sum: int,
    score_count: int,
    width: int,
    hiding_bits: int = DEFAULT_HIDING_BITS,
) -> bool:
    """Tell whether the phases of a reply are within 2^-lambda of ideal ones.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        score_count: n, the coefficients of c0 that a full reply keeps, over all its polynomial
            pairs.
        width: B.
        hiding_bits: lambda.
    """
    return score_count * largest_shift(parameter_set, absolute_sum) << hiding_bits <= 2 * width + 1


def largest_absolute_sum(parameters: EncryptionParameters, score_count: int, hiding_bits: int) -> int:
    """Return the largest A' that hides and fits with the width of these parameters.

    It is negative if none does.

    Args:
        parameters: of the ciphertexts.
        score_count: n, as in `hides`.
        hiding_bits: lambda.
    """
    width = noise_width(parameters)
    share = ((2 * width + 1) >> hiding_bits) // score_count - _fixed_shift(parameters.parameter_set)
    return min(2 * share + 1, _product_room(parameters, width)) // noise.FRESH_NOISE_TIMES_TWO


def _product_room(parameters: EncryptionParameters, width: int) -> int:
    """Return the most that 43 A' may be for the noise to stay within V."""
    zeros = noise.zero_noise(parameters.parameter_set)
    most = int(2 * _NOISE_SHARE * parameters.parameter_set.modulus / parameters.plain_modulus)
    return most - (1 + 2 * zeros + 2 * width)


def fits(parameters: EncryptionParameters, absolute_sum: int, width: int) -> bool:
    """Tell whether the noise of every reply with uniform noise of this width stays within V.

    Args:
        parameters: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        width: B.
    """
    return noise.FRESH_NOISE_TIMES_TWO * absolute_sum <= _product_room(parameters, width)


def private_reply_bits(parameters: EncryptionParameters, places: int) -> ReplyBits | None:
    """Return how replies are packed, whatever the weights are; None if there is no room for it.

    Args:
        parameters: of the ciphertexts.
        places: how many coefficients of c0 a pair of the reply keeps.
    """
    return reply_bits(parameters, places, _NOISE_SHARE)


def told_bits(parameters: EncryptionParameters, width: int, places: int) -> float:
    """Return how many bits kept coefficients tell at most, whatever a client has sent.

    Args:
        parameters: of the ciphertexts.
        width: B, at least 0.
        places: how many coefficients of c0 are kept.
    """
    return places * (math.log2(parameters.parameter_set.modulus) - math.log2(2 * width + 1))


@cache
def least_unknown(parameter_set: ParameterSet) -> int:
    """Return n128: how many coefficients of u must stay unknown to protect a pair's c1'."""
    deviation = lattice.SEAL_DEVIATION if len(parameter_set.primes) == 1 else lattice.ROUNDING_DEVIATION
    return lattice.least_dimension(
        SECURITY_BITS, parameter_set.poly_modulus_degree, math.log2(parameter_set.modulus), deviation
    )


def cap_bits(parameter_set: ParameterSet) -> float:
    """Return the bits that the kept coefficients of a pair have to stay below."""
    return TERNARY_BITS * (parameter_set.poly_modulus_degree - least_unknown(parameter_set))


def most_places(parameters: EncryptionParameters, width: int) -> int:
    """Return how many coefficients of c0 a pair may keep, unless it has more rows than features.

    Args:
        parameters: of the ciphertexts.
        width: B, at least 0.
    """
    return max(0, math.ceil(cap_bits(parameters.parameter_set) / told_bits(parameters, width, 1)) - 1)
