"""EIClient: the client of encrypted-inference 0.9, with sealserve as its transport.

>>> from sealserve.ei import EIClient
>>> with EIClient("127.0.0.1:50051", model="mnist") as client:
...     labels = client.predict(X)

Keys, encryption and decryption are those of an unmodified `EILinearRegressionClient`. New programs
should use `sealserve.client.Client`, which is much faster, is exact, and needs no evaluation keys.
"""

import base64
import binascii
import itertools
import threading
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from encrypted.inference.eiclient import EILinearRegressionClient
from numpy.typing import NDArray

from sealserve._codec.arguments import timeout_of
from sealserve._codec.codec import EncryptedItem, fits_a_message
from sealserve._codec.messages import item_requests
from sealserve._rpc.calls import send_item
from sealserve._rpc.channel import endpoint, open_channel
from sealserve._rpc.connections import Connections, call
from sealserve._rpc.forks import call_in_child
from sealserve._rpc.methods import Methods
from sealserve._rpc.retry import change_delay_seconds, goes_on, run_with_retries
from sealserve.credentials import Credentials
from sealserve.errors import (
    ClientClosedError,
    InputError,
    KeyNotFoundError,
    ParameterError,
    ReplyError,
    StaleConfigError,
)
from sealserve.he.ei_format import check_reply
from sealserve.he.layouts import LAYOUTS
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.address import parse_address
from sealserve.protocol.item import EncryptedReply, ItemHeader, ReplyForm, SealCiphertext
from sealserve.protocol.key_record import KeyRecord
from sealserve.protocol.model import Model, Offer
from sealserve.protocol.output import Output
from sealserve.protocol.pin import Pin
from sealserve.protocol.refusal import refusal
from sealserve.protocol.wire import header_to_proto, model_from_proto
from sealserve.v1 import model_pb2

__all__ = ["EIClient"]

_ATTEMPTS = 3


class EIClient:
    """Predictions of one served model for an encrypted-inference client.

    Args:
        address: HOST:PORT of the service.
        model: the model's name; may be empty when the service has one model only.
        credentials: certificates and a token. By default there are none: the client speaks TLS to
            other machines, and plaintext to this one.
        client: the client whose keys are used. By default one is made, with a new secret key.
        key_id: the id of the client's evaluation keys, if they are registered already.
        evaluation_keys: the client's evaluation keys (`client.get_public_keys()[1]`), if they have
            been made already. By default they are made when they are needed.
        clip: move features outside the model's range to its nearest end. By default they are
            refused.
        timeout_seconds: how long an answer may take, 60 seconds by default.

    Every method raises errors of `sealserve.errors` only. Threads may share a client.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        credentials: Credentials | None = None,
        client: EILinearRegressionClient | None = None,
        key_id: str = "",
        evaluation_keys: bytes = b"",
        clip: bool = False,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.client = client or EILinearRegressionClient()
        self._model_name = model
        self._clip = clip
        self._timeout_seconds = timeout_of(timeout_seconds)
        parse_address(address)
        self._connections = Connections(
            lambda: Methods(open_channel(address, credentials), endpoint=endpoint(address, credentials)),
            lambda connection: connection.channel.close(),
        )
        self._registry = KeyRegistry(address, credentials=credentials, timeout_seconds=timeout_seconds)
        self._is_closed = False
        self._renew_lock()
        call_in_child(self._renew_lock)
        self._model: Model | None = None
        self._config_id = ""  # that a replica has named
        self._key_id = key_id
        self._evaluation_keys = evaluation_keys

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Registered keys stay until they expire.

        Methods that are called later raise ClientClosedError.
        """
        self._is_closed = True
        self._connections.close()
        self._registry.close()

    @property
    def model(self) -> Model:
        """The service's description of the model."""
        if self._is_closed:
            raise ClientClosedError
        with self._lock:
            if self._model is None:
                request = model_pb2.GetModelRequest(model=self._model_name, config_id=self._config_id)
                response = call(self._connections, "get_model", request, self._timeout_seconds)
                model = model_from_proto(response.model)
                model.check_requirements()
                self._model = model
                self._model_name = model.name  # the service may have several models by then
            return self._model

    @property
    def key_id(self) -> str:
        """The id of the registered keys; "" until they are registered."""
        return self._key_id

    def register_keys(self, *, ttl_seconds: float | None = None) -> KeyRecord:
        """Make evaluation keys, unless they have been made, and register them: 9 MB.

        Predictions do so by themselves when they need to.

        Args:
            ttl_seconds: how long to keep the keys. The service may keep them for less.
        """
        with self._lock:
            # Keys that are made a second time are different keys, with another id.
            self._evaluation_keys = self._evaluation_keys or self.client.get_public_keys()[1]
            record = self._registry.register(self._evaluation_keys, ttl_seconds=ttl_seconds)
            self._key_id = record.key_id
            return record

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels, or a regressor's targets.

        Args:
            X: rows (rows, column_count): an array, sequence or DataFrame.

        Raises:
            InputError: rows are refused. Dummies were sent in their place.
            SealserveError: the service refused, cannot be reached, or answered wrongly.
        """
        output, scores = self._score_rows(X)
        return output.predict(scores)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Score rows: (rows,) for two classes or one target, else (rows, score_count).

        Raises what predict raises.
        """
        output, scores = self._score_rows(X)
        return output.decision_function(scores)

    def score(self, ciphertexts: Sequence[str]) -> list[str]:
        """Score one row. If the service has lost the keys, register them again and retry once.

        If the model has changed, or replicas of the service serve two versions of it, retry until
        timeout_seconds are over.

        Args:
            ciphertexts: what the client's `encrypt` returns: base64 strings.

        Returns:
            What its `decrypt` takes: base64 strings.

        Raises:
            InputError: the ciphertexts are not base64.
            ReplyError: the reply is not what `decrypt` can take. Its native code would end this
                process.
            SealserveError: the service refused or cannot be reached.
        """
        try:
            data = [base64.b64decode(text, validate=True) for text in ciphertexts]
        except (binascii.Error, ValueError, TypeError) as error:
            raise InputError("ciphertexts must be base64 strings, as `encrypt` returns them") from error
        return self._score(data)[1]

    def _score(self, ciphertexts: list[bytes]) -> tuple[Model, list[str]]:
        """Score one row; return the scores and the description that they are of."""
        began, lost_key = time.monotonic(), False
        for changes in itertools.count():
            model, delay = self.model, change_delay_seconds(changes + 1)
            try:
                return model, self._request_scores(model, ciphertexts)
            except KeyNotFoundError:
                if lost_key:
                    raise
                lost_key = True
                with self._lock:
                    self._key_id = ""
            except StaleConfigError as stale:
                if time.monotonic() + delay >= began + self._timeout_seconds:
                    raise
                if goes_on(changes):
                    with self._lock:
                        self._model, self._config_id = None, stale.current_config_id
            time.sleep(delay)
        raise AssertionError("the loop returns or raises")

    def _register_missing_keys(self) -> str:
        """Register the keys unless they are registered, and return their id."""
        with self._lock:
            return self._key_id or self.register_keys().key_id

    def _request_scores(self, model: Model, ciphertexts: list[bytes]) -> list[str]:
        offer = _offer(model)
        header = ItemHeader(
            model=model.name,
            config_id=model.config_id,
            layout=offer.layout,
            parameter_set=offer.parameters.parameter_set.name,
            row_count=1,
            ciphertext_count=len(ciphertexts),
            key_id=self._register_missing_keys(),
            reply_forms=frozenset({ReplyForm.SEAL_CIPHERTEXT}),
        )
        byte_count, limits = sum(map(len, ciphertexts)), model.limits
        item = EncryptedItem(
            header=header,
            header_message=header_to_proto(header),
            ciphertexts=ciphertexts,
            byte_count=byte_count,
            piece_count=model.output.score_count,
            max_piece_bytes=offer.max_piece_bytes(ReplyForm.SEAL_CIPHERTEXT),
            fits_a_message=fits_a_message(byte_count, offer.cost.reply_bytes, limits),
            max_message_bytes=limits.max_message_bytes,
        )
        pieces = run_with_retries(partial(self._send, item), self._timeout_seconds).scores
        return [_encode_piece(piece) for piece in pieces]

    def _send(self, item: EncryptedItem, timeout_seconds: float) -> EncryptedReply:
        with self._connections.use(0) as methods:
            return send_item(
                methods,
                item_requests(item),
                timeout_seconds,
                header=item.header,
                piece_count=item.piece_count,
                max_piece_bytes=item.max_piece_bytes,
                in_one_message=item.fits_a_message,
            )

    def _score_rows(self, X: Any) -> tuple[Output, NDArray[np.float64]]:
        """Score rows one by one. If what rows or scores mean changes meanwhile, score all again."""
        for _ in range(_ATTEMPTS):
            model = self.model
            features = model.features(model.schema.rows(X))
            rows, is_refused = model.grid.admissible(features, clip=self._clip)
            replies = [self._score([base64.b64decode(text) for text in self.client.encrypt(row)]) for row in rows]
            scores = [self.client.decrypt(reply) for _, reply in replies]
            if all(used is model or Pin.of(used).digest == Pin.of(model).digest for used, _ in replies):
                if is_refused.any():
                    raise refusal(model.grid, features, model.feature_names, clip=self._clip)
                return model.output, np.reshape(scores, (len(rows), model.output.score_count))
        raise StaleConfigError(self.model.config_id)


def _offer(model: Model) -> Offer:
    for offer in model.offers:
        if offer.layout is LAYOUTS["ei-slots"]:
            return offer
    raise ParameterError(
        f"model {model.name!r} is not offered to encrypted-inference clients: start the service with --key-store, or "
        "use sealserve.client.Client"
    )


def _encode_piece(piece: object) -> str:
    """Check that encrypted-inference can take a piece of a reply, and return it in base64.

    Raises:
        ReplyError: it cannot.
    """
    if not isinstance(piece, SealCiphertext):
        raise ReplyError
    check_reply(piece)
    return base64.b64encode(piece).decode()
