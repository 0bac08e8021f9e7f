"""Rows -> items, replies -> scores: the pure part of a client, shared by whatever does its I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ParameterError, ReplyError, SecretKeyError
from sealserve.he import _seal
from sealserve.he.decryptor import Decryptor
from sealserve.he.encryptor import Encryptor
from sealserve.he.parameters import Layout
from sealserve.he.row import RowPacking
from sealserve.item import ItemHeader, Residues, Scores
from sealserve.keys import SecretKey
from sealserve.model import Model, Offer
from sealserve.secret_key_access import TOKEN


@dataclass(frozen=True)
class Item:
    """One encrypted item, ready to send."""

    header: ItemHeader
    ciphertexts: list[bytes]

    @cached_property
    def byte_count(self) -> int:
        """Bytes of its ciphertexts."""
        return sum(map(len, self.ciphertexts))


class Exchange:
    """Encrypts rows for one configuration of a model and decrypts its replies.

    Raises:
        ParameterError: the model has no offer that this client understands, or one that contradicts itself.
        SecretKeyError: the given key belongs to no offer's ring.
    """

    def __init__(self, model: Model, secret_key: SecretKey | None = None) -> None:
        self.model = model
        self.offer = _choose(model, secret_key)
        parameters = self.offer.parameters
        self.secret_key = secret_key or SecretKey.generate(parameters.parameter_set)
        self._packing = _packing(model, self.offer)
        if _seal.fresh_parms_id(_seal.context(parameters)) != self.offer.parms_id:
            raise ParameterError(f"model {model.name!r}: parms_id is not that of the published parameters")
        self._centers = np.array(self.offer.score_centers, np.int64)
        self._radii = np.array(self.offer.score_radii, np.int64)
        exported = self.secret_key.export(TOKEN)
        self._encryptor = Encryptor(parameters, exported)
        self._decryptor = Decryptor(parameters, exported)

    def quantize(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.int64]:
        """Round rows (rows, feature_count) onto the model's grid.

        Raises:
            InputError: a feature is not finite or, unless `clip`, out of range.
        """
        return self.model.grid.quantize(rows, clip=clip)

    def encrypt(self, quantized_rows: NDArray[np.int64]) -> Item:
        """Pack and encrypt rows (1..rows_per_item, feature_count) on the model's grid."""
        ciphertexts = [self._encryptor.encrypt(plaintext) for plaintext in self._packing.pack_rows(quantized_rows)]
        offer = self.offer
        header = ItemHeader(
            self.model.name,
            self.model.config_id,
            offer.layout,
            offer.parameters.parameter_set.name,
            len(quantized_rows),
            len(ciphertexts),
        )
        return Item(header, ciphertexts)

    def decrypt(self, row_count: int, reply: Sequence[Scores]) -> NDArray[np.float64]:
        """Decrypt the reply of an item of row_count rows: scores, float64 (row_count, score_count).

        Raises:
            ReplyError: it fails a check, a score outside the published range included.
        """
        packing = self._packing
        if len(reply) != packing.polynomials:
            raise ReplyError
        residues = np.empty((row_count, self.model.output.score_count), np.int64)
        for polynomial, pair in enumerate(reply):
            classes = packing.classes_in(polynomial)
            places = packing.places(row_count, len(classes))
            if not isinstance(pair, Residues):
                raise ReplyError
            decrypted = self._decryptor.decrypt(pair.c0, pair.c1, places.ravel())
            residues[:, classes.start : classes.stop] = decrypted.reshape(places.shape)
        t = self.offer.parameters.plain_modulus
        # Distances from the centres, in -t/2 .. t/2; t < 2^60, so that nothing here leaves int64.
        distances = (residues - self._centers % t + t // 2) % t - t // 2
        if (np.abs(distances) > self._radii).any():
            raise ReplyError
        return np.asarray((self._centers + distances) / self.offer.score_scale)


def _choose(model: Model, secret_key: SecretKey | None) -> Offer:
    usable = [offer for offer in model.offers if offer.layout is Layout.ROW and not offer.private_weights]
    if not usable:
        raise ParameterError(
            f"model {model.name!r} is not offered in a way that this version understands: update sealserve"
        )
    for offer in usable:
        if secret_key is None or secret_key.fits(offer.parameters.parameter_set):
            return offer
    wanted = ", ".join(offer.parameters.parameter_set.name for offer in usable)
    raise SecretKeyError(f"{secret_key!r} is of no ring that model {model.name!r} is offered in: {wanted}")


def _packing(model: Model, offer: Offer) -> RowPacking:
    try:
        packing = RowPacking(
            offer.parameters.parameter_set.poly_modulus_degree,
            model.grid.feature_count,
            model.output.score_count,
            offer.classes_per_polynomial,
        )
    except ValueError as error:
        raise ParameterError(f"model {model.name!r}: {error}") from error
    if (packing.rows, packing.ciphertexts) != (offer.rows_per_item, offer.ciphertexts_per_item):
        raise ParameterError(f"model {model.name!r}: its packing contradicts itself")
    if int(model.grid.levels.max()) >= offer.parameters.plain_modulus:
        raise ParameterError(f"model {model.name!r}: features on its grid do not fit the plaintext modulus")
    return packing
