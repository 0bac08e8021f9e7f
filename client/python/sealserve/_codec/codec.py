"""Rows -> items, replies -> scores: the pure part of a client, shared by whatever does its I/O."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.encryptor_pool import EncryptorPool, MakeEncryptor, PooledEncryptor
from sealserve._codec.offers import choose, packing_of
from sealserve.errors import ParameterError, ReplyError
from sealserve.he import _seal
from sealserve.he.layouts import Packing
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.protocol.item import ItemHeader, Residues, Scores
from sealserve.protocol.model import Cost, Model, Offer
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN


@dataclass(frozen=True)
class Item:
    """One item, ready to send.

    Attributes:
        ciphertexts: encrypted as they are taken, and anew each time.
        byte_count: their length, all together.
        cost: of a full item.
    """

    header: ItemHeader
    ciphertexts: Iterable[bytes]
    byte_count: int
    cost: Cost


@dataclass(frozen=True)
class _Ciphertexts:
    """Rows encrypted as they are taken: a batch of columns is longer than what is in memory at a time."""

    encryptor: Encryptor | PooledEncryptor
    packing: Packing
    quantized_rows: NDArray[np.int64]

    def __iter__(self) -> Iterator[bytes]:
        return self.encryptor.encrypt_all(self.packing.pack_rows(self.quantized_rows))


class Exchange:
    """Encrypts rows for one offer of a model and decrypts its replies.

    Args:
        model: what the service says of it.
        secret_key: the key to use; by default a new one.
        offer: one of the model's; by default the best for single rows.
        seeded: upload ciphertexts of half the size, for twice the time of encryption.
        encryptors: worker processes for the encryption of batches.

    Attributes:
        public_key: what has to be registered before the first item; b"" where the weights are open.
        key_id: its id; "" where there is none.

    Raises:
        ParameterError: the model has no offer that this client understands, or one that contradicts itself.
        SecretKeyError: the given key belongs to no offer's ring.
    """

    def __init__(
        self,
        model: Model,
        secret_key: SecretKey | None = None,
        *,
        offer: Offer | None = None,
        seeded: bool = False,
        encryptors: EncryptorPool | None = None,
    ) -> None:
        self.model = model
        self.offer = offer or choose(model, 1, secret_key=secret_key)
        parameters = self.offer.parameters
        self.secret_key = secret_key or SecretKey.generate(parameters.parameter_set)
        self._packing = packing_of(model, self.offer)
        if _seal.fresh_parms_id(_seal.context(parameters)) != self.offer.parms_id:
            raise ParameterError(f"model {model.name!r}: parms_id is not that of the published parameters")
        self._centers = np.array(self.offer.score_centers, np.int64)
        self._radii = np.array(self.offer.score_radii, np.int64)
        exported = self.secret_key.export(TOKEN)
        make = MakeEncryptor(SeededEncryptor if seeded else Encryptor, parameters, exported)
        self._encryptor = make() if encryptors is None else PooledEncryptor(encryptors, make)
        self._decryptor = Decryptor(parameters, exported)
        self.public_key = self.secret_key.public_encryption_key if self.offer.required_key else b""
        self.key_id = hashlib.sha256(self.public_key).hexdigest() if self.public_key else ""

    def quantize(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.int64]:
        """Compute the features of rows (rows, column_count) and round them onto the model's grid.

        Raises:
            InputError: a feature is not finite or, unless `clip`, out of range.
        """
        return self.model.grid.quantize(self.model.features(rows), clip=clip)

    def encrypt(self, quantized_rows: NDArray[np.int64]) -> Item:
        """Pack and encrypt rows (1..rows_per_item, feature_count) on the model's grid."""
        offer, packing = self.offer, self._packing
        header = ItemHeader(
            self.model.name,
            self.model.config_id,
            offer.layout,
            offer.parameters.parameter_set.name,
            len(quantized_rows),
            packing.ciphertexts,
            self.key_id,
        )
        byte_count = packing.ciphertexts * self._encryptor.ciphertext_bytes
        return Item(header, _Ciphertexts(self._encryptor, packing, quantized_rows), byte_count, offer.cost)

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
