"""A client that has nothing but the protos: integers, struct, and the generated code.

It makes its own secret key, encrypts, asks a real service and decrypts, without SEAL and without
the SDK. And it reads what SEAL encrypts.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import PackedEncryptor, SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve.v1 import model_pb2, model_pb2_grpc, parameters_pb2, prediction_pb2, prediction_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from tests.support import blake2xb
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, linear, running_server, served

Integers = Sequence[int]
SYSTEM = random.SystemRandom()
HEADER = struct.Struct("<HBBBBHQ")


def product(polynomial: Integers, ternary: Integers, q: int) -> list[int]:
    """A product modulo X^N + 1 and q of a polynomial, residues of q, with one of -1, 0 and 1."""
    N, width = len(polynomial), (q.bit_length() + len(polynomial).bit_length()) // 8 + 1

    def packed(coefficients: Integers) -> int:
        return int.from_bytes(b"".join(c.to_bytes(width, "little") for c in coefficients), "little")

    def unpacked(number: int) -> list[int]:
        data = number.to_bytes(2 * N * width, "little")
        found = [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]
        return [(low - high) % q for low, high in zip(found[:N], found[N:], strict=True)]

    whole = packed(polynomial)
    plus, minus = (unpacked(whole * packed([int(c == sign) for c in ternary])) for sign in (1, -1))
    return [(p - m) % q for p, m in zip(plus, minus, strict=True)]


def unpacked(data: bytes, bits: int, count: int) -> list[int]:
    """The integers of so many bits; there is nothing else."""
    assert len(data) == -(-count * bits // 8)
    whole = int.from_bytes(data, "little")
    assert whole >> count * bits == 0
    return [whole >> index * bits & (1 << bits) - 1 for index in range(count)]


def rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


class Context:
    """What a client knows of encryption parameters."""

    def __init__(self, parameters: parameters_pb2.EncryptionParameters) -> None:
        self.N, self.t = parameters.poly_modulus_degree, parameters.plain_modulus
        self.primes = list(parameters.coeff_modulus)[: parameters.data_prime_count]
        self.parms_id = parameters.parms_id
        self.q = prod(self.primes)
        self.units = [self.q // p * pow(self.q // p, -1, p) for p in self.primes]

    def residues(self, polynomial: Integers) -> bytes:
        return b"".join(struct.pack(f"<{len(polynomial)}Q", *(c % p for c in polynomial)) for p in self.primes)

    def polynomial(self, residues: bytes) -> list[int]:
        """The integers modulo q whose residues these are."""
        count = len(residues) // 8 // len(self.primes)
        by_prime = [struct.unpack_from(f"<{count}Q", residues, 8 * count * k) for k in range(len(self.primes))]
        assert all(residue < p for p, values in zip(self.primes, by_prime, strict=True) for residue in values)
        return [sum(map(prod, zip(values, self.units, strict=True))) % self.q for values in zip(*by_prime, strict=True)]

    def prefix(self, polynomials: int, behind: int = 0) -> bytes:
        """The 113 bytes before the residues of so many polynomials."""
        words = polynomials * self.N * len(self.primes)
        end = 113 + 8 * words
        data = HEADER.pack(0xA15E, 16, 4, 4, 0, 0, end + behind) + self.parms_id
        data += struct.pack("<BQQQdQ", 0, 2, self.N, len(self.primes), 1.0, 1)
        data += HEADER.pack(0xA15E, 16, 4, 4, 0, 0, end - 89) + struct.pack("<Q", words)
        assert len(data) == 113
        return data

    def encrypt(self, plaintext: Integers, secret: Integers) -> bytes:
        """Encrypt with the noise at its greatest: the bounds on scores hold for it."""
        a = [SYSTEM.randrange(self.q) for _ in range(self.N)]
        return self.prefix(2) + self.residues(self.masked(plaintext, secret, a)) + self.residues(a)

    def masked(self, plaintext: Integers, secret: Integers, a: Integers) -> list[int]:
        """The first polynomial of a ciphertext whose second one is a."""
        noise = [SYSTEM.choice((-21, 21)) for _ in range(self.N)]
        mask = product(a, secret, self.q)
        return [rounded(self.q * m, self.t) + e - s for m, e, s in zip(plaintext, noise, mask, strict=True)]

    def phase(self, c0: Integers, c1: Integers, secret: Integers, places: Integers) -> list[int]:
        """(c0 + c1 s) mod q at some places, whose coefficients of c0 are given."""
        masked = product(c1, secret, self.q)
        return [(c + masked[place]) % self.q for c, place in zip(c0, places, strict=True)]

    def decrypt_packed(
        self, pair: prediction_pb2.PackedPair, bits: model_pb2.ReplyBits, secret: Integers, places: Integers
    ) -> list[int]:
        """Decrypt modulo 2^bits, as no SEAL does."""
        q = 1 << bits.c1
        c0 = [value << bits.c1 - bits.c0 for value in unpacked(pair.c0, bits.c0, len(places))]
        masked = product(unpacked(pair.c1, bits.c1, self.N), secret, q)
        phases = [(c + masked[place]) % q for c, place in zip(c0, places, strict=True)]
        return [rounded(self.t * phase, q) % self.t for phase in phases]

    def decrypt(self, c0: bytes, c1: bytes, secret: Integers, places: Integers) -> list[int]:
        phases = self.phase(self.polynomial(c0), self.polynomial(c1), secret, places)
        return [rounded(self.t * phase, self.q) % self.t for phase in phases]


def ternary(count: int) -> list[int]:
    return [SYSTEM.choice((-1, 0, 1)) for _ in range(count)]


# Against a service


@dataclass(frozen=True)
class Alone:
    """A client of one model."""

    model: model_pb2.Model
    predictions: Any

    def integers(self, rows: Sequence[Sequence[float]]) -> list[list[int]]:
        """Rows on the grid."""
        grid, count = self.model.input, self.model.input.feature_count
        low, step = ([*values] * (count // len(values)) for values in (grid.minimum, grid.step))
        return [[round((x - m) / s) for x, m, s in zip(row, low, step, strict=True)] for row in rows]

    def scores(self, offer: model_pb2.Offer, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Encrypt rows for an offer, have them scored, and decrypt: a list for each row."""
        context = Context(offer.parameters)
        secret, integers = ternary(context.N), self.integers(rows)
        make = {parameters_pb2.LAYOUT_ROW: row_plaintexts, parameters_pb2.LAYOUT_COLUMN: column_plaintexts}
        plaintexts = make[offer.layout](context, offer, integers)
        header = prediction_pb2.ItemHeader(
            model=self.model.name,
            config_id=self.model.config_id,
            layout=offer.layout,
            parameter_set=offer.parameters.parameter_set,
            row_count=len(rows),
            ciphertext_count=len(plaintexts),
            reply_forms=[prediction_pb2.REPLY_FORM_PACKED],
        )
        ciphertexts = [context.encrypt(plaintext, secret) for plaintext in plaintexts]
        request = prediction_pb2.PredictRequest(header=header, ciphertexts=ciphertexts)
        reply = self.predictions.Predict(request, timeout=HANG_SECONDS)
        assert reply.HasField("done")
        scores: list[list[float]] = [[] for _ in rows]
        classes = offer.classes_per_polynomial
        for pair, piece in enumerate(reply.scores.scores):
            held = min(classes, self.model.output.score_count - pair * classes)
            places = score_places(self.model, context, offer, len(rows), held)
            residues = context.decrypt_packed(piece.packed, offer.reply_bits, secret, places)
            for index, residue in enumerate(residues):
                row, score = index // held, pair * classes + index % held
                center, radius = offer.score_centers[score], offer.score_radii[score]
                distance = (residue - center + context.t // 2) % context.t - context.t // 2
                assert abs(distance) <= radius
                scores[row].append((center + distance) / offer.score_scale)
        return scores


def row_plaintexts(context: Context, offer: model_pb2.Offer, rows: list[list[int]]) -> list[list[int]]:
    f, plaintexts = min(len(rows[0]), context.N), []
    for first in range(0, len(rows[0]), context.N):
        plaintext = [0] * context.N
        for r, row in enumerate(rows):
            block = row[first : first + context.N]
            at = r * offer.classes_per_polynomial * f
            plaintext[at : at + len(block)] = block
        plaintexts.append(plaintext)
    return plaintexts


def column_plaintexts(context: Context, offer: model_pb2.Offer, rows: list[list[int]]) -> list[list[int]]:
    return [[*feature, *[0] * (context.N - len(rows))] for feature in zip(*rows, strict=True)]


def score_places(
    model: model_pb2.Model, context: Context, offer: model_pb2.Offer, row_count: int, held: int
) -> list[int]:
    if offer.layout == parameters_pb2.LAYOUT_COLUMN:
        return list(range(row_count))
    f, C = min(model.input.feature_count, context.N), offer.classes_per_polynomial
    return [r * C * f + j * f + f - 1 for r in range(row_count) for j in range(held)]


def alone(channel: grpc.Channel) -> Alone:
    model = model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(), timeout=HANG_SECONDS).model
    assert not model.requires
    return Alone(model, prediction_pb2_grpc.PredictionServiceStub(channel))


def offer_of(model: model_pb2.Model, layout: int) -> model_pb2.Offer:
    return next(offer for offer in model.offers if offer.layout == layout)


def test_labels_are_the_estimators(digits_server: str, digits_model: Digits) -> None:
    """For one row and for several: c0 has the coefficients of the item's rows only."""
    with grpc.insecure_channel(digits_server) as channel:
        client = alone(channel)
        offer = offer_of(client.model, parameters_pb2.LAYOUT_ROW)
        assert offer.rows_per_item > 2
        for count in (1, 2, offer.rows_per_item):
            scores = np.array(client.scores(offer, digits_model.X[:count].tolist()))
            assert np.abs(scores - digits_model.scores[:count]).max() <= offer.weight_rounding_error_bound + 1e-9
            labels = [client.model.output.classes.integers.values[row.argmax()] for row in scores]
            assert labels == digits_model.estimator.predict(digits_model.X[:count]).tolist()


def test_a_batch_in_columns() -> None:
    generator = np.random.default_rng(4)
    weights, rows = generator.normal(size=(3, 5)), generator.integers(0, 256, (7, 5)) / 255
    with (
        running_server(ModelRegistry([served("narrow", linear(weights))])) as address,
        grpc.insecure_channel(address) as channel,
    ):
        client = alone(channel)
        offer = offer_of(client.model, parameters_pb2.LAYOUT_COLUMN)
        scores = client.scores(offer, rows.tolist())
    assert np.abs(np.array(scores) - rows @ weights.T).max() <= offer.weight_rounding_error_bound + 1e-9


def test_a_row_of_several_ciphertexts() -> None:
    generator = np.random.default_rng(5)
    weights, row = generator.normal(size=(2, 5000)), generator.random(5000)
    model = served("wide", linear(weights))
    on_grid = np.round(row * 255) / 255
    with running_server(ModelRegistry([model])) as address, grpc.insecure_channel(address) as channel:
        client = alone(channel)
        offer = client.model.offers[0]
        assert offer.ciphertexts_per_item > 1
        (scores,) = client.scores(offer, [row.tolist()])
    assert np.abs(np.array(scores) - weights @ on_grid).max() <= offer.weight_rounding_error_bound + 1e-9


# Against SEAL


RINGS = {
    s.name.partition("-")[2]: s for s in LAYOUTS["row"].open_parameter_sets + LAYOUTS["row"].private_parameter_sets
}


class Encrypted:
    """A ciphertext that SEAL has made, of any form, with its plaintext and its secret key."""

    def __init__(self, parameter_set: ParameterSet, plain_modulus: int, make: type[Encryptor]) -> None:
        self.parameters = parameters = EncryptionParameters(parameter_set, plain_modulus)
        described = parameters_pb2.EncryptionParameters(
            poly_modulus_degree=parameter_set.poly_modulus_degree,
            coeff_modulus=parameter_set.primes,
            data_prime_count=len(parameter_set.data_primes),
            plain_modulus=plain_modulus,
            parms_id=_seal.fresh_parms_id(_seal.context(parameters)),
        )
        self.context = context = Context(described)
        key = SecretKey.generate(parameter_set).export(TOKEN)
        self.plaintext = [SYSTEM.randrange(context.t) for _ in range(context.N)]
        self.data = make(parameters, key).encrypt(np.array(self.plaintext, np.uint64))
        # s itself is what (0, round(q / t)) decrypts to.
        unit = [rounded(context.q, context.t), *[0] * (context.N - 1)]
        everywhere = np.arange(context.N)
        zero, one = bytes(8 * len(context.primes) * context.N), context.residues(unit)
        residues = Decryptor(parameters, key).decrypt(zero, one, everywhere).tolist()
        self.secret = [residue - context.t if residue > 1 else residue for residue in residues]
        assert set(self.secret) == {-1, 0, 1}


@pytest.mark.parametrize("ring", RINGS)
def test_what_seal_encrypts_is_read_and_decrypted_with_integers(ring: str) -> None:
    made = Encrypted(RINGS[ring], 1_000_003, Encryptor)
    context, places = made.context, range(made.context.N)
    assert made.data[:113] == context.prefix(2)
    half = (len(made.data) - 113) // 2
    c0, c1 = made.data[113 : 113 + half], made.data[113 + half :]
    assert len(c0) == len(c1) == 8 * context.N * len(context.primes)
    assert context.decrypt(c0, c1, made.secret, places) == made.plaintext
    phases = context.phase(context.polynomial(c0), context.polynomial(c1), made.secret, places)
    noise = [phase - rounded(context.q * m, context.t) for phase, m in zip(phases, made.plaintext, strict=True)]
    centred = [(e + context.q // 2) % context.q - context.q // 2 for e in noise]
    assert 5 < max(map(abs, centred)) <= 21, "of thousands of coefficients, one is well off zero"


@pytest.mark.parametrize("ring", RINGS)
def test_what_seal_encrypts_seeded_is_read_with_integers(ring: str) -> None:
    """Up to the seed. How it expands is another matter."""
    made = Encrypted(RINGS[ring], 1 << 20, SeededEncryptor)
    context = made.context
    assert made.data[:113] == context.prefix(1, behind=81)
    assert len(made.data) == 113 + 8 * context.N * len(context.primes) + 81
    context.polynomial(made.data[113:-81])  # which checks the residues
    assert made.data[-81:-65] == HEADER.pack(0xA15E, 16, 4, 4, 0, 0, 81)
    assert made.data[-65] == 1
    assert len(set(made.data[-64:])) > 30, "a seed"


def expanded(context: Context, seed: bytes) -> bytes:
    """The residues of c1, as keys.proto describes the expansion."""
    return blake2xb.expanded(seed, tuple(context.primes), context.N).tobytes()


def test_what_the_sdk_packs_is_decrypted_with_integers() -> None:
    made = Encrypted(RINGS["4096-92"], 1 << 20, PackedEncryptor)
    context, count = made.context, 2 * made.context.N
    assert made.data[:32] == context.parms_id
    c0 = struct.pack(f"<{count}Q", *unpacked(made.data[96:], 46, count))
    c1 = expanded(context, made.data[32:96])
    assert context.decrypt(c0, c1, made.secret, range(context.N)) == made.plaintext


def test_what_integers_pack_is_what_the_service_hands_to_seal() -> None:
    made = Encrypted(RINGS["4096-92"], 1 << 20, Encryptor)
    context, seed = made.context, SYSTEM.randbytes(64)
    c0 = context.masked(made.plaintext, made.secret, context.polynomial(expanded(context, seed)))
    residues = [c % prime for prime in context.primes for c in c0]
    whole = sum(residue << 46 * index for index, residue in enumerate(residues))
    packed = context.parms_id + seed + whole.to_bytes(2 * context.N * 46 // 8, "little")
    form = CiphertextFormat(RINGS["4096-92"], context.parms_id)
    loaded = _seal.load_ciphertext(_seal.context(made.parameters), form.checked(packed))
    first, second = (polynomial.tobytes() for polynomial in _seal.ciphertext_residues(loaded, form.shape))
    assert context.decrypt(first, second, made.secret, range(context.N)) == made.plaintext
