"""RowCodec: encrypts rows into items and decrypts replies into scores. No I/O."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.encryptor_pool import EncryptorFactory, EncryptorPool, PooledEncryptor
from sealserve._codec.offers import choose, packing_of
from sealserve.errors import InputError, ParameterError, ReplyError
from sealserve.he import _seal
from sealserve.he.layouts import Packing, polynomial_groups
from sealserve.he.quantization import Quantized
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import PackedEncryptor, SeededEncryptor
from sealserve.protocol.item import EncryptedScores, ItemHeader, PackedPair, RefusedRows, ReplyForm, Residues
from sealserve.protocol.model import CiphertextForm, Limits, Model, Offer
from sealserve.protocol.wire import header_to_proto
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve.v1 import prediction_pb2

_KEPT_ROW_COUNTS = 8  # numbers of rows whose header and coefficients are kept


@dataclass(frozen=True)
class EncryptedItem:
    """Encrypted rows that are ready to send.

    Attributes:
        header: the description of the item.
        header_message: the header as it is sent.
        ciphertexts: full, seeded or packed ones. Each iteration encrypts the rows anew, one
            ciphertext at a time.
        byte_count: the length of all ciphertexts.
        piece_count: the number of pieces of the reply.
        max_piece_bytes: the most bytes of such a piece.
        fits_a_message: whether the item and its reply may each travel in one message.
        max_message_bytes: the service's limit.
        requests: the serialized messages, if the same ones are sent each time; otherwise empty.
        refused: which of its rows are dummies, and why; None if its rows were not checked.
    """

    header: ItemHeader
    header_message: prediction_pb2.ItemHeader = field(repr=False)
    ciphertexts: Iterable[bytes] = field(repr=False)
    byte_count: int
    piece_count: int
    max_piece_bytes: int
    fits_a_message: bool
    max_message_bytes: int
    requests: tuple[bytes, ...] = field(default=(), repr=False)
    refused: RefusedRows | None = field(default=None, repr=False)

    def request(self) -> bytes:
        """Encrypt the item into one serialized message, for a unary call."""
        message = prediction_pb2.PredictRequest(header=self.header_message, ciphertexts=self.ciphertexts)
        return message.SerializeToString()


class Decrypted(NamedTuple):
    """The decrypted reply to an item.

    Attributes:
        scores: float64 (rows, score_count).
        is_plausible: whether each score is within its published range. The scores of dummies do not
            count. If it is false, nothing of the scores may be kept.
    """

    scores: NDArray[np.float64]
    is_plausible: bool


def fits_a_message(byte_count: int, reply_bytes: int, limits: Limits) -> bool:
    """Whether an item and its reply, of so many bytes, may each travel in one message."""
    return max(byte_count, reply_bytes) <= limits.max_message_bytes


@dataclass(frozen=True)
class _Ciphertexts:
    """Rows that are encrypted one ciphertext at a time, as a caller iterates.

    The ciphertexts of a batch in columns take more memory than should be in use at a time.
    """

    encryptor: Encryptor | PooledEncryptor
    packing: Packing
    quantized_rows: NDArray[np.int64] = field(repr=False)

    def __iter__(self) -> Iterator[bytes]:
        return self.encryptor.encrypt_all(self.packing.pack_rows(self.quantized_rows))


class RowCodec:
    """Encrypts rows for one offer of a model and decrypts the replies.

    Args:
        model: the service's description of the model.
        secret_key: the key to use; by default a new one.
        offer: one of the model's offers; by default the best for single rows.
        clip: move features outside the model's range to its nearest end instead of refusing them.
        seeded: upload ciphertexts of half the size, for twice the time of encryption. They are
            packed, and smaller still, where the offer takes that.
        reply_form: the form of replies to ask for, one of the offer's; by default the shortest.
        encryptors: worker processes for the encryption of batches; by default this process encrypts
            all.

    Attributes:
        public_key: the key to register before the first item; b"" where the weights are open.
        key_id: the id of the public key; "" where there is none.
        item_bytes: the length of all ciphertexts of an item.
        max_piece_bytes: the most bytes of a piece of a reply.

    Raises:
        ParameterError: the model has no offer that this client understands, or the offer
            contradicts itself.
        SecretKeyError: the given key does not fit the ring of any offer.
    """

    def __init__(
        self,
        model: Model,
        secret_key: SecretKey | None = None,
        *,
        offer: Offer | None = None,
        clip: bool = False,
        seeded: bool = False,
        reply_form: ReplyForm | None = None,
        encryptors: EncryptorPool | None = None,
    ) -> None:
        self.model = model
        self.offer = offer or choose(model, 1, secret_key=secret_key)
        parameters = self.offer.parameters
        self.secret_key = secret_key or SecretKey.generate(parameters.parameter_set)
        self._clip = clip
        self._packing = packing_of(model, self.offer)
        if _seal.fresh_parms_id(_seal.context(parameters)) != self.offer.parms_id:
            raise ParameterError(f"model {model.name!r}: parms_id is not that of the published parameters")
        radii = np.array(self.offer.score_radii, np.int64)
        self._lowest = np.array(self.offer.score_centers, np.int64) - radii
        self._lowest_residues = self._lowest % parameters.plain_modulus
        self._spans = 2 * radii
        exported = self.secret_key.export(TOKEN)
        kind = Encryptor
        if seeded:
            is_packed = CiphertextForm.PACKED in self.offer.ciphertext_forms
            kind = PackedEncryptor if is_packed else SeededEncryptor
        make = EncryptorFactory(kind, parameters, exported)
        self._encryptor = make() if encryptors is None else PooledEncryptor(encryptors, make)
        form = reply_form or self.offer.reply_forms[0]
        is_packed = form is ReplyForm.PACKED
        self._decryptor = Decryptor(parameters, exported, self.offer.reply_bits if is_packed else None)
        self._piece_type = PackedPair if is_packed else Residues
        self.public_key = self.secret_key.public_encryption_key if self.offer.required_key else b""
        self.key_id = hashlib.sha256(self.public_key).hexdigest() if self.public_key else ""
        # Every item has as many ciphertexts and pieces of a reply, whatever its number of rows.
        self.item_bytes = self._packing.ciphertexts * self._encryptor.ciphertext_bytes
        self.max_piece_bytes = self.offer.max_piece_bytes(form)
        self._fits_a_message = fits_a_message(self.item_bytes, self.offer.reply_bytes[form], model.limits)
        header = partial(_item_header, model, self.offer, self._packing, self.key_id, form)
        self._header = lru_cache(_KEPT_ROW_COUNTS)(header)
        self._score_places = lru_cache(_KEPT_ROW_COUNTS)(partial(_score_places, self._packing))

    def quantize(self, rows: NDArray[Any]) -> Quantized:
        """Compute the features of rows (rows, column_count) and round them onto the model's grid.

        Refused rows become dummies, with the same operations for all values: see `InputGrid`. What
        steps refuse is refused by the grid, too: its features are NaN.
        """
        return self.model.grid.quantize(self.model.features(rows, clip=self._clip), clip=self._clip)

    def refusal(self, rows: NDArray[Any]) -> InputError:
        """Compose the error of rows (rows, column_count), at least one of which is refused."""
        return self.model.refusal(rows, clip=self._clip)

    def encrypt(self, quantized_rows: NDArray[np.int64]) -> EncryptedItem:
        """Return an item of rows (1..rows_per_item, feature_count) on the model's grid."""
        header, header_message = self._header(len(quantized_rows))
        return EncryptedItem(
            header=header,
            header_message=header_message,
            ciphertexts=_Ciphertexts(self._encryptor, self._packing, quantized_rows),
            byte_count=self.item_bytes,
            piece_count=self._packing.polynomials,
            max_piece_bytes=self.max_piece_bytes,
            fits_a_message=self._fits_a_message,
            max_message_bytes=self.model.limits.max_message_bytes,
        )

    def read(
        self, row_count: int, reply: Sequence[EncryptedScores], is_refused: NDArray[np.bool_] | None = None
    ) -> Decrypted:
        """Decrypt the reply to an item of row_count rows.

        Raises nothing, and takes no other path, because of what the reply decrypts to: see
        `Decrypted.is_plausible`.

        Args:
            row_count: at least 1.
            reply: the pieces of the reply.
            is_refused: which rows were dummies, bool (row_count,), if any were.

        Raises:
            ReplyError: the reply is malformed.
        """
        if len(reply) != self._packing.polynomials:
            raise ReplyError
        residues = np.empty((row_count, self.model.output.score_count), np.int64)
        for polynomials, classes, places in self._score_places(row_count):
            pairs = [pair for pair in reply[polynomials] if isinstance(pair, self._piece_type)]
            if len(pairs) < len(reply[polynomials]):
                raise ReplyError
            decrypted = self._decryptor.decrypt_all(pairs, places).reshape(len(pairs), row_count, -1)
            residues[:, classes] = decrypted.swapaxes(0, 1).reshape(row_count, -1)
        # Distances from the lowest scores, in 0 .. t - 1; t < 2^60, so that int64 holds them.
        distances = (residues - self._lowest_residues) % self.offer.parameters.plain_modulus
        is_outside = distances > self._spans
        if is_refused is not None:
            is_outside &= ~is_refused[:, None]
        with np.errstate(all="ignore"):  # no error and no warning may depend on a score
            scores = (self._lowest + distances) / self.offer.score_scale
        return Decrypted(scores, not np.count_nonzero(is_outside))  # faster than any()

    def decrypt(self, row_count: int, reply: Sequence[EncryptedScores]) -> NDArray[np.float64]:
        """Decrypt the reply to an item of row_count rows: scores, float64 (row_count, score_count).

        Raises:
            ReplyError: the reply fails a check, such as that every score is within its published
                range.
        """
        scores, is_plausible = self.read(row_count, reply)
        if not is_plausible:
            raise ReplyError
        return scores


def _item_header(
    model: Model, offer: Offer, packing: Packing, key_id: str, form: ReplyForm, row_count: int
) -> tuple[ItemHeader, prediction_pb2.ItemHeader]:
    """Return the header of an item of so many rows, and the header as it is sent."""
    header = ItemHeader(
        model=model.name,
        config_id=model.config_id,
        layout=offer.layout,
        parameter_set=offer.parameters.parameter_set.name,
        row_count=row_count,
        ciphertext_count=packing.ciphertexts,
        key_id=key_id,
        reply_forms=frozenset({form}),
    )
    return header, header_to_proto(header)


def _score_places(packing: Packing, row_count: int) -> list[tuple[slice, slice, NDArray[np.intp]]]:
    """Return groups of a reply's pieces, their classes, and the places of each piece's scores."""
    found = []
    for group in polynomial_groups(packing):
        first, last = packing.classes_in(group.start), packing.classes_in(group.stop - 1)
        places = packing.places(row_count, len(first)).ravel()
        found.append((slice(group.start, group.stop), slice(first.start, last.stop), places))
    return found
