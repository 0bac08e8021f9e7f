"""The round trip of a batch through the column engine, of integers or of residues.

The floats at either end are left out.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.column import ColumnPacking
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.linear.base import LinearScoring
from sealserve_service.engines.linear.column import ColumnEngine
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.plan import Plan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.affine_models import Integers
from tests.support.item_round_trip import secret_key
from tests.support.reply_pairs import Pair


def plan_of(
    parameter_set: ParameterSet, weights: NDArray[np.int64], intercept: Sequence[int] = (), plain_modulus: int = 1 << 20
) -> ColumnPlan:
    """A plan of integers (score_count, feature_count), not checked for noise or wrap."""
    scores, features = weights.shape
    zeros = (0,) * scores
    return Plan(
        parameters=EncryptionParameters(parameter_set, plain_modulus),
        packing=ColumnPacking(parameter_set.poly_modulus_degree, features, scores),
        grid=InputGrid.of(features, 0.0, 1.0),
        model=QuantizedModel(weights, tuple(intercept) or zeros, 1.0),
        weight_bits=int(np.abs(weights).max()).bit_length(),
        score_centers=zeros,
        score_radii=zeros,
        score_error_bound=0.0,
        input_rounding_error_bound=0.0,
        total_error_bound=0.0,
    )


class ColumnRoundTrip:
    """A client and a server of a plan."""

    def __init__(self, plan: ColumnPlan) -> None:
        self.plan = plan
        self.engine = ColumnEngine(plan)
        key = secret_key(plan.parameters.parameter_set)
        self.encryptor = Encryptor(plan.parameters, key)
        self.decryptor = Decryptor(plan.parameters, key, plan.reply_bits)

    def begin(self, row_count: int) -> LinearScoring:
        """Begin an item."""
        name = self.plan.parameters.parameter_set.name
        header = ItemHeader(
            model="",
            config_id="",
            layout=LAYOUTS["column"],
            parameter_set=name,
            row_count=row_count,
            ciphertext_count=self.plan.packing.ciphertexts,
        )
        return self.engine.begin(header, ANONYMOUS.name)

    def encrypted(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encrypt rows on the grid (1..N, feature_count)."""
        return [self.encryptor.encrypt(plaintext) for plaintext in self.plan.packing.pack_rows(rows)]

    def reply(self, ciphertexts: Sequence[bytes], row_count: int, chunks: Iterable[int] = ()) -> list[Pair]:
        """Score the ciphertexts of an item, fed in chunks of these lengths, or all at once."""
        scoring = self.begin(row_count)
        for chunk in _cut(ciphertexts, chunks):
            scoring.add(chunk)
        return list(scoring.finish())

    def decrypted(self, ciphertexts: Sequence[bytes], row_count: int, chunks: Iterable[int] = ()) -> Integers:
        """Score and decrypt the ciphertexts of an item: (row_count, score_count)."""
        places = self.plan.packing.places(row_count, 1)
        pieces = [
            self.decryptor.decrypt(c0, c1, places.ravel()) for c0, c1 in self.reply(ciphertexts, row_count, chunks)
        ]
        residues = np.stack(pieces, axis=1).astype(object)
        t, centers = self.plan.parameters.plain_modulus, np.array(self.plan.score_centers, object)
        scores: Integers = (residues - centers + t // 2) % t - t // 2 + centers
        return scores

    def packed(self, residues: NDArray[np.uint64]) -> list[bytes]:
        """Ciphertexts of residues (features, 2, data primes, N)."""
        return [self.engine.format.pack(c0, c1.tobytes()) for c0, c1 in residues]

    def products(self, residues: NDArray[np.uint64], chunks: Iterable[int] = ()) -> NDArray[np.uint64]:
        """Score the ciphertexts of residues, of full batches: (score_count, 2, data primes, N)."""
        N = self.plan.packing.poly_modulus_degree
        pieces = [np.frombuffer(b"".join(pair), np.uint64) for pair in self.reply(self.packed(residues), N, chunks)]
        return np.array(pieces).reshape(len(pieces), *residues.shape[1:])


def _cut(ciphertexts: Sequence[bytes], lengths: Iterable[int]) -> Iterator[Sequence[bytes]]:
    first = 0
    for length in (*lengths, len(ciphertexts)):
        if chunk := ciphertexts[first : first + length]:
            yield chunk
        first += length
