"""The round trip of an item without the floats at either end: integers in, integers out."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from sealserve.he.decryptor import Decryptor
from sealserve.he.encryptor import Encryptor
from sealserve.he.parameters import Layout, ParameterSet
from sealserve.he.planner import RowPlan
from sealserve.item import ItemHeader, Residues
from sealserve.keys import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.auth import ANONYMOUS
from sealserve_service.engines.row import RowEngine, RowScoring
from tests.row_models import Integers


@cache
def secret_key(parameter_set: ParameterSet) -> bytes:
    return SecretKey.generate(parameter_set).export(TOKEN)


class Round:
    """A client and a server of a plan."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan
        self.engine = RowEngine(plan)
        key = secret_key(plan.parameters.parameter_set)
        self.encryptor = Encryptor(plan.parameters, key)
        self.decryptor = Decryptor(plan.parameters, key)

    def scores(self, rows: NDArray[np.int64]) -> Integers:
        """Send one item of rows on the grid (1..R, feature_count); returns (rows, score_count)."""
        return self.decrypted(self.encrypted(rows), len(rows))

    def encrypted(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encrypt one item."""
        return [self.encryptor.encrypt(plaintext) for plaintext in self.plan.packing.pack_rows(rows)]

    def begin(self, row_count: int, ciphertext_count: int) -> RowScoring:
        """Begin an item."""
        name = self.plan.parameters.parameter_set.name
        return self.engine.begin(ItemHeader("", "", Layout.ROW, name, row_count, ciphertext_count), ANONYMOUS)

    def reply(self, ciphertexts: list[bytes], row_count: int) -> list[Residues]:
        """Score the ciphertexts of an item."""
        scoring = self.begin(row_count, len(ciphertexts))
        scoring.add(ciphertexts)
        return list(scoring.finish())

    def decrypted(self, ciphertexts: list[bytes], row_count: int) -> Integers:
        """Score and decrypt the ciphertexts of an item."""
        packing, pieces = self.plan.packing, []
        for polynomial, (c0, c1) in enumerate(self.reply(ciphertexts, row_count)):
            places = packing.places(row_count, len(packing.classes_in(polynomial)))
            pieces.append(self.decryptor.decrypt(c0, c1, places.ravel()).reshape(places.shape))
        return self.nearest_to_centers(np.concatenate(pieces, axis=1).astype(object))

    def nearest_to_centers(self, residues: Integers) -> Integers:
        """Take for each residue modulo t the integer that is nearest to its class's centre."""
        t, centers = self.plan.parameters.plain_modulus, np.array(self.plan.score_centers, object)
        scores: Integers = (residues - centers + t // 2) % t - t // 2 + centers
        return scores
