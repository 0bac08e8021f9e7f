"""The round trip of an item, in rows or columns and in either mode: integers in, integers out.

The floats at either end are left out.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.public_key import generate_public_key
from sealserve.protocol.item import ItemHeader
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.engines.linear.base import LinearScoring
from sealserve_service.engines.linear.column import ColumnEngine
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor, ZeroEncryptorOf
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.affine_models import Integers
from tests.support.reply_pairs import Pair


@cache
def secret_key(parameter_set: ParameterSet) -> bytes:
    return SecretKey.generate(parameter_set).export(TOKEN)


@cache
def zero_encryptor(parameter_set: ParameterSet) -> ZeroEncryptor:
    """Encrypts zero under the public key that belongs to `secret_key`."""
    return ZeroEncryptor(parameter_set, generate_public_key(parameter_set, secret_key(parameter_set)))


def _registered(tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    return zero_encryptor(parameter_set)


class RoundTrip:
    """A client and a server of a plan.

    Args:
        plan: of rows or columns.
        keys: finds the client's public key, where the plan needs it.
    """

    def __init__(self, plan: RowPlan | ColumnPlan, keys: ZeroEncryptorOf = _registered) -> None:
        self.plan = plan
        self.engine: RowEngine | ColumnEngine
        if isinstance(plan.packing, RowPacking):
            self.engine = RowEngine(plan, keys=keys)
        else:
            self.engine = ColumnEngine(plan, keys=keys)
        key = secret_key(plan.parameters.parameter_set)
        self.encryptor = Encryptor(plan.parameters, key)
        self.decryptor = Decryptor(plan.parameters, key, plan.reply_bits)

    def scores(self, rows: NDArray[np.int64]) -> Integers:
        """Send one item of rows on the grid (1..R, feature_count); returns (rows, score_count)."""
        return self.decrypted(self.encrypted(rows), len(rows))

    def encrypted(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encrypt one item."""
        return [self.encryptor.encrypt(plaintext) for plaintext in self.plan.packing.pack_rows(rows)]

    def begin(self, row_count: int, ciphertext_count: int) -> LinearScoring:
        """Begin an item."""
        name, layout = self.plan.parameters.parameter_set.name, self.engine.offer.layout
        return self.engine.begin(
            ItemHeader(
                model="",
                config_id="",
                layout=layout,
                parameter_set=name,
                row_count=row_count,
                ciphertext_count=ciphertext_count,
            ),
            ANONYMOUS.name,
        )

    def reply(self, ciphertexts: list[bytes], row_count: int) -> list[Pair]:
        """Score the ciphertexts of an item."""
        scoring = self.begin(row_count, len(ciphertexts))
        scoring.add(ciphertexts)
        return list(scoring.finish())

    def decrypted(self, ciphertexts: list[bytes], row_count: int) -> Integers:
        """Score and decrypt the ciphertexts of an item."""
        return self.opened(self.reply(ciphertexts, row_count), row_count)

    def opened(self, reply: list[Pair], row_count: int) -> Integers:
        """Decrypt a reply."""
        packing, pieces = self.plan.packing, []
        for polynomial, (c0, c1) in enumerate(reply):
            places = packing.places(row_count, len(packing.classes_in(polynomial)))
            pieces.append(self.decryptor.decrypt(c0, c1, places.ravel()).reshape(places.shape))
        return self.nearest_to_centers(np.concatenate(pieces, axis=1).astype(object))

    def nearest_to_centers(self, residues: Integers) -> Integers:
        """Take for each residue modulo t the integer that is nearest to its class's centre."""
        t, centers = self.plan.parameters.plain_modulus, np.array(self.plan.score_centers, object)
        scores: Integers = (residues - centers + t // 2) % t - t // 2 + centers
        return scores
