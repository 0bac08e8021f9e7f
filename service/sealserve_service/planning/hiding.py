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
reply n F / (2 B + 1). For 2^-lambda a reply

    2 B + 1 >= 2^lambda n F,   B = floor(2^lambda n F / 2)

That holds for every v within its bound, not just on average. Residues modulo q take distributions
no further apart. Over replies distances add up, even if the questions are equal: after k replies
k 2^-lambda. Replies of two models with equal scores are twice as far from each other.

c1'. With the ideal phase, c0' at the kept places is the phase minus (c1' s) there: a function of
the score, r and c1'. What is left of W, u, e0 and e1 is c1' = W c1 + (a u + e1). Here a u + e1 is a
Ring-LWE sample whose secret u is drawn anew for each polynomial pair and kept by nobody. Knowing s
and e does not help: they are independent of u. The sample's modulus is the key's, P q; its noise is
SEAL's; u is ternary as s is. Whoever tells it from a uniform polynomial solves Ring-LWE at the
parameters that protect the features, 128 bits by the tc128 table. (Division by P takes uniform
polynomials to uniform ones.) So the hiding is statistical in c0, and computational in c1.

Why each part is there. Without the encryption of zero, c1' / c1 is W. Without the noise, phases
give W v, with v known to the key's owner: an equation on W for each score. As the noise drowns z
too, phases are no equations on u. The dropped coefficients of c0 would need noise of their own, and
nobody needs them.

Premises: the key's a is uniform and its e is SEAL's; c0 and c1 are SEAL's symmetric encryption. No
width holds off a client that does not keep to them (a degenerate a or c1, a large v or e). What an
offer publishes is not hidden either: t, the centres and radii of the scores, the error bounds and,
by the size of the noise, A' are sums over the weights.

Exactness. The error of the phase is at most 21.5 A' + 1/2 + zero_noise + B (`noise.is_decrypted`):

    q (1 - 2^-56) > t (43 A' + 1 + 2 zero_noise + 2 B)

With B about 2^(lambda - 1) n F that is log2 q > log2 t + log2 A' + log2 n + lambda + 4.43: the
price of hiding is lambda - 1 + log2 n bits.
"""

from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve_service.planning import noise

DEFAULT_HIDING_BITS = 40


def largest_shift(parameter_set: ParameterSet, absolute_sum: int) -> int:
    """Return F: how far a phase is from the ideal one at most, without the uniform noise.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A'.
    """
    return noise.FRESH_NOISE_TIMES_TWO * absolute_sum // 2 + 1 + noise.zero_noise(parameter_set)


def noise_width(
    parameter_set: ParameterSet, absolute_sum: int, score_count: int, hiding_bits: int = DEFAULT_HIDING_BITS
) -> int:
    """Return B, the least width of the uniform noise that hides the weights.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        score_count: n, the coefficients of c0 that a full reply keeps, over all its polynomial
            pairs.
        hiding_bits: lambda; the statistical distance of a reply's phases to ideal ones is at most
            2^-lambda.
    """
    return (score_count * largest_shift(parameter_set, absolute_sum) << hiding_bits) // 2


def fits(parameters: EncryptionParameters, absolute_sum: int, width: int) -> bool:
    """Tell whether every reply with uniform noise of this width decrypts to the exact scores.

    Args:
        parameters: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        width: B.
    """
    zeros = noise.zero_noise(parameters.parameter_set)
    return noise.is_decrypted(parameters, noise.FRESH_NOISE_TIMES_TWO * absolute_sum + 1 + 2 * zeros + 2 * width)
