"""Offers: the places of features and scores, the coefficients of replies, and what is refused."""

import math
from collections.abc import Sequence
from fractions import Fraction
from math import prod

from sealserve.v1 import model_pb2, parameters_pb2, prediction_pb2
from tests.vectors.check.polynomials import composed, product, rounded
from tests.vectors.check.seal_objects import Parameters, parms_id, require, unpacked

MAX_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
ROW = parameters_pb2.LAYOUT_ROW


def parameters_fault(message: parameters_pb2.EncryptionParameters) -> str:
    """What a client refuses of encryption parameters; "" if nothing."""
    N, primes, t = message.poly_modulus_degree, list(message.coeff_modulus), message.plain_modulus
    if N not in MAX_BITS:
        return "degree"
    if not 1 <= len(primes) <= 64 or len(set(primes)) < len(primes):
        return "primes"
    if not all(p % (2 * N) == 1 and p.bit_length() <= 60 and is_prime(p) for p in primes):
        return "primes"
    if prod(primes).bit_length() > MAX_BITS[N]:
        return "security"
    if message.data_prime_count != max(1, len(primes) - 1):
        return "data_prime_count"
    data_primes = primes[: message.data_prime_count]
    if message.scheme == parameters_pb2.SCHEME_CKKS:
        if t or not 1 <= message.ciphertext_scale < prod(data_primes):
            return "scale"
    elif not (2 <= t < prod(data_primes) and t.bit_length() <= 60 and message.ciphertext_scale == 1):
        return "plain_modulus"
    return "" if parms_id(message.scheme, N, data_primes, t) == message.parms_id else "parms_id"


def is_prime(number: int) -> bool:
    """Whether a number of at most 64 bits is prime: the test of Miller and Rabin."""
    if number < 2 or any(number % p == 0 for p in _SMALL_PRIMES):
        return number in _SMALL_PRIMES
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(
        pow(base, odd, number) == 1 or any(pow(base, odd << k, number) == number - 1 for k in range(twos))
        for base in _SMALL_PRIMES
    )


_SMALL_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def reply_bits_fault(offer: model_pb2.Offer) -> str:
    """What a client refuses of how replies are packed; "" if nothing."""
    if not offer.HasField("reply_bits"):
        return ""
    bits, p = offer.reply_bits, Parameters.of(offer.parameters)
    if not (8 <= bits.c0 <= bits.c1 <= 83 and 1 <= bits.prime_count <= p.data_prime_count):
        return "reply_bits"
    r = (1 + Fraction(1, 128)) * p.t / 2
    lifted = prod(p.data.primes[: bits.prime_count])
    cost = r * p.N / 2**bits.c1 + r / 2**bits.c0 + Fraction(p.t * (p.N + 1), 2 * lifted)
    return "" if cost < Fraction(1, 2) - Fraction(1, 2**57) else "reply_bits"


def offer_fault(model: model_pb2.Model, offer: model_pb2.Offer) -> str:
    """What a client refuses of an offer of rows or columns; "" if nothing."""
    if fault := parameters_fault(offer.parameters) or reply_bits_fault(offer):
        return fault
    scores, centers, radii = model.output.score_count, offer.score_centers, offer.score_radii
    if not len(centers) == len(radii) == scores:
        return "score_centers"
    if any(radius < 0 or 2 * radius + 1 >= offer.parameters.plain_modulus for radius in radii):
        return "score_radii"
    if not (math.isfinite(offer.score_scale) and offer.score_scale > 0):
        return "score_scale"
    N, features, classes = offer.parameters.poly_modulus_degree, model.input.feature_count, offer.classes_per_polynomial
    if offer.layout != ROW:
        sizes = classes, offer.rows_per_item, offer.ciphertexts_per_item
        return "" if sizes == (1, N, features) else "packing"
    taken = classes * min(features, N)
    if not 1 <= classes <= scores or taken > N or offer.ciphertexts_per_item != -(-features // N):
        return "packing"
    fewer = offer.weights == parameters_pb2.WEIGHTS_PRIVATE
    rows = N // taken
    return "" if offer.rows_per_item == rows or (fewer and 1 <= offer.rows_per_item <= rows) else "packing"


def plaintexts(offer: model_pb2.Offer, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The plaintexts of an item of rows on the grid."""
    N, features = offer.parameters.poly_modulus_degree, len(rows[0])
    if offer.layout != ROW:
        return [[*column, *[0] * (N - len(rows))] for column in zip(*rows, strict=True)]
    f, found = min(features, N), list[list[int]]()
    for first in range(0, features, N):
        plaintext = [0] * N
        for r, row in enumerate(rows):
            block, at = row[first : first + N], r * offer.classes_per_polynomial * f
            plaintext[at : at + len(block)] = block
        found.append(plaintext)
    return found


def classes_in(offer: model_pb2.Offer, score_count: int, pair: int) -> range:
    """The classes that share a polynomial pair."""
    first = pair * offer.classes_per_polynomial
    return range(first, min(first + offer.classes_per_polynomial, score_count))


def pair_count(offer: model_pb2.Offer, score_count: int) -> int:
    """The number of polynomial pairs of a reply."""
    return -(-score_count // offer.classes_per_polynomial)


def places(offer: model_pb2.Offer, feature_count: int, row_count: int, class_count: int) -> list[int]:
    """The coefficients that c0 of a pair has, ordered by row, then by class."""
    if offer.layout != ROW:
        return list(range(row_count))
    f, C = min(feature_count, offer.parameters.poly_modulus_degree), offer.classes_per_polynomial
    return [r * C * f + j * f + f - 1 for r in range(row_count) for j in range(class_count)]


def polynomials_of(
    offer: model_pb2.Offer, scores: prediction_pb2.EncryptedScores, count: int
) -> tuple[list[int], list[int], int]:
    """The kept coefficients of c0, all of c1, and the modulus of both: q, or 2^ReplyBits.c1."""
    p, bits = Parameters.of(offer.parameters), offer.reply_bits
    if offer.HasField("reply_bits"):
        require(scores.HasField("packed"), "form")
        kept = [c << bits.c1 - bits.c0 for c in unpacked(scores.packed.c0, bits.c0, count)]
        return kept, unpacked(scores.packed.c1, bits.c1, p.N), 1 << bits.c1
    require(scores.HasField("residues"), "form")
    c0, c1 = scores.residues.c0, scores.residues.c1
    words = len(p.data.primes)
    require((len(c0), len(c1)) == (8 * words * count, 8 * words * p.N), "length")
    return composed(p.data.residues(c0), p.data.primes), composed(p.data.residues(c1), p.data.primes), p.q


def phases(c0: Sequence[int], c1: Sequence[int], q: int, secret: Sequence[int], places: Sequence[int]) -> list[int]:
    """(c0 + c1 s) mod q at some places, whose coefficients of c0 are given."""
    masked = product(c1, secret, q)
    return [(c + masked[place]) % q for c, place in zip(c0, places, strict=True)]


def integer_of(offer: model_pb2.Offer, score: int, phase: int, q: int) -> int:
    """The integer score that a phase decrypts to. It must be within the radius."""
    t, center = offer.parameters.plain_modulus, offer.score_centers[score]
    residue = rounded(t * phase, q) % t
    distance = (residue - center + t // 2) % t - t // 2
    require(abs(distance) <= offer.score_radii[score], "range")
    return center + distance
