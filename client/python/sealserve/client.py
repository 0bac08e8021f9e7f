"""The client: scikit-learn's words for a model that scores encrypted rows.

>>> from sealserve.client import Client
>>> with Client("127.0.0.1:50051", model="mnist") as client:
...     labels = client.predict(X)

Features are encrypted and scores decrypted on this machine, with a secret key that never leaves it. Do not send
scores, errors or decisions to retry back to the service's operator: see SECURITY.md.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._codec.batches import Batch, Result, Scored
from sealserve._codec.codec import Exchange
from sealserve._codec.messages import fits_a_message
from sealserve._codec.session import Method, Session, predictions
from sealserve._rpc.calls import called, described_once, scored_once
from sealserve._rpc.channel import open_channel
from sealserve._rpc.connections import Connections
from sealserve._rpc.retry import CHANGED, ELSEWHERE, FIRST_CONTACT_SECONDS, Patience, retried
from sealserve._streaming.schedule import MAX_CHANGES
from sealserve._streaming.threads import Line, ScoreStream
from sealserve.credentials import Credentials
from sealserve.errors import KeyNotFoundError, ServiceError, StaleConfigError
from sealserve.key_registry import public_key_upload
from sealserve.protocol.address import host_of, is_loopback
from sealserve.protocol.model import Model, Offer
from sealserve.protocol.wire import model_from_proto
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")


class Client:
    """Predictions of one served model.

    Args:
        address: HOST:PORT of the service.
        model: the model's name; may be empty when the service has one model only.
        credentials: certificates and a token; without any: TLS, or plaintext to this machine.
        secret_key: a key to use; by default one is made on first use and lives as long as the client.
        layout: "row" for the least delay of single rows, "column" for the most rows a second; "auto" decides by the
            number of rows and what the service says that each costs.
        clip: move features outside the model's range to its nearest end instead of refusing them.
        timeout_seconds: how long an answer may take.
        connections: how many to open; by default as many as the service suggests (one a process).
        seeded: upload ciphertexts of half the size, for twice the time of encryption and more of the service's; by
            default single rows to other machines. For batches it pays on links of less than half a
            gigabit a second.
        encrypt_processes: encrypt batches in so many processes beside this one. They are spawned: a program that uses
            them has its entry under `if __name__ == "__main__"`.

    Every method raises errors of `sealserve.errors` only. Threads may share a client.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        credentials: Credentials | None = None,
        secret_key: SecretKey | None = None,
        layout: str = "auto",
        clip: bool = False,
        timeout_seconds: float = 60.0,
        connections: int | None = None,
        seeded: bool | None = None,
        encrypt_processes: int = 0,
    ) -> None:
        self._model_name = model
        if seeded is None and is_loopback(host_of(address)):
            seeded = False
        self._session = Session(layout, secret_key, clip=clip, seeded=seeded, encrypt_processes=encrypt_processes)
        self._timeout_seconds = timeout_seconds
        self._lanes = connections
        self._connections = Connections(lambda: open_channel(address, credentials), lambda channel: channel.close())
        self._asking, self._registering = threading.Lock(), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The secret key is gone with the client, unless it was saved."""
        self._connections.close()
        self._session.close()

    @property
    def model(self) -> Model:
        """What the service says of the model."""
        with self._asking:
            if self._session.known_model is None:
                self._session.learn(self._described(self._model_name, FIRST_CONTACT_SECONDS))
            return self._session.model

    @property
    def secret_key(self) -> SecretKey:
        """The secret key in use for single rows."""
        return self._exchange(1).secret_key

    def offer(self, row_count: int = 1) -> Offer:
        """Return the way in which so many rows travel."""
        return self._exchange(row_count).offer

    def models(self) -> Iterator[Model]:
        """Yield all models that the service lists, ordered by name."""
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_token=token)
            page = self._called(partial(_page, request), FIRST_CONTACT_SECONDS)
            yield from map(model_from_proto, page.models)
            token = page.next_page_token
            if not token:
                return

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels, or a regressor's targets, for rows (rows, column_count): an array, sequence or DataFrame.

        Raises:
            InputError: a row is refused; nothing was sent then.
            SealserveError: the service refused, cannot be reached, or answered wrongly.
        """
        output, scores = self._scored(X)
        return output.predict(scores)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Score rows: (rows,) for two classes or one target, else (rows, score_count). Raises what predict raises."""
        output, scores = self._scored(X)
        return output.decision_function(scores)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict probabilities (rows, classes), where the model's estimator has them. Raises what predict raises.

        Raises:
            NoSuchMethodError: it has none.
        """
        self.model.output.check_probabilities()
        output, scores = self._scored(X)
        return output.predict_proba(scores)

    def stream(
        self, rows: Iterable[Any], *, method: Method = "predict", rows_per_item: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Predict rows as they come from an iterable, which may be endless or live, or longer than memory.

        What breaks on the way is resumed: rows without a result are sent again, on another connection where one is
        dead, and no index comes twice.

        Args:
            rows: each (column_count,); an array (rows, column_count), also one in a file, is read in blocks.
            method: what a result is: that of predict, decision_function or predict_proba for the row.
            rows_per_item: rows to gather before they are sent. One by one by default, for the least delay, unless
                the layout is "column": then as many as the offer takes. More, up to the offer's rows_per_item, share
                ciphertexts and so cost less each.

        Yields:
            (index, result), as they finish; the error, as a value, where a row or its item failed for good.

        Raises:
            TransportError, QuotaExceededError, DrainingError: nothing got through for timeout_seconds.
            SealserveError: the service refuses the client, or answers wrongly.
            What `rows` raises, after the results of the rows before.
        """
        known = self.model
        gatherer = self._session.stream_gatherer(method, rows_per_item)
        self._register(self._session.exchange(rows_per_item or 1))
        for result in self._streamed(gatherer.batches(rows), known):
            yield from predictions(method, result)

    def _scored(self, X: Any) -> Scored:
        """Score rows in order, all under one meaning: again if the model changes on the way."""
        for changes in range(MAX_CHANGES + 1):
            model = self.model
            rows = model.schema.rows(X)
            if len(rows) == 0:
                return Scored(model.output, np.empty((0, model.output.score_count)))
            try:
                return self._scored_once(self._session.batches(rows))
            except CHANGED as error:
                if changes == MAX_CHANGES:
                    raise
                if isinstance(error, StaleConfigError):
                    self._refresh(error)
                else:
                    self._register_again(self._session.exchange(len(rows)))
        raise AssertionError("it returns or raises")

    def _scored_once(self, batches: list[Batch]) -> Scored:
        batch, model = batches[0], batches[0].exchange.model
        self._register(batch.exchange)
        item = batch.exchange.encrypt(batch.quantized)
        if len(batches) > 1 or not fits_a_message(item, model.limits):
            return self._session.joined(self._streamed(iter(batches), model))
        reply = self._called(
            lambda channel, left: scored_once(channel, item, model.limits, left), self._timeout_seconds
        )
        return Scored(model.output, batch.exchange.decrypt(len(batch.rows), reply))

    def _streamed(self, batches: Iterator[Batch], model: Model) -> Iterator[Result]:
        lanes = self._lanes or max(1, model.limits.suggested_connections)
        return iter(ScoreStream(self._line, lanes, batches, model.limits, self._renewed, self._timeout_seconds))

    @contextmanager
    def _line(self, number: int) -> Iterator[Line]:
        with self._connections.use(number) as channel:
            call = prediction_pb2_grpc.PredictionServiceStub(channel).StreamPredict
            yield Line(call, partial(self._connections.replace, channel))

    def _called(self, act: Callable[[grpc.Channel, float], T], unanswered_seconds: float) -> T:
        """Act on a connection, and again, on another one where the first is dead, while the time allows."""

        def attempt(seconds_left: float) -> T:
            with self._connections.use(0) as channel:
                try:
                    return act(channel, seconds_left)
                except ELSEWHERE:
                    self._connections.replace(channel)
                    raise

        return retried(attempt, Patience(self._timeout_seconds, unanswered_seconds))

    def _exchange(self, row_count: int) -> Exchange:
        """Return what encrypts and decrypts so many rows."""
        _ = self.model  # asked for, if it is not known yet
        return self._session.exchange(row_count)

    def _renewed(self, batch: Batch, changed: ServiceError) -> Sequence[Batch]:
        if isinstance(changed, StaleConfigError):
            self._refresh(changed)
            batches = self._session.renewed(batch)
            self._register(batches[0].exchange)
            return batches
        self._register_again(batch.exchange)
        return [batch]

    def _register(self, exchange: Exchange) -> None:
        """Register the public encryption key that an exchange needs, if it needs one, before its first use."""
        with self._registering:
            if self._session.lacks_key(exchange):
                self._upload_key(exchange)

    def _register_again(self, exchange: Exchange) -> None:
        """Register a key that the service said it has no longer, unless it was for another item meanwhile."""
        with self._registering:
            try:
                self._called(partial(_key, exchange.key_id), self._timeout_seconds)
            except KeyNotFoundError:
                self._upload_key(exchange)

    def _upload_key(self, exchange: Exchange) -> None:
        upload = public_key_upload(exchange.public_key, exchange.offer.parameters.parameter_set.name)
        self._called(partial(_registered, upload), self._timeout_seconds)
        self._session.key_is_registered(exchange)

    def _refresh(self, stale: StaleConfigError) -> None:
        """Get the model again, unless another thread has."""
        with self._asking:
            known = self._session.model
            if known.config_id != stale.current_config_id:
                # By its name: without one it might no longer be the only model.
                self._session.learn(self._described(known.name, self._timeout_seconds))

    def _described(self, name: str, seconds: float) -> Model:
        """Ask what the model is, for so many seconds if nothing answers."""
        return self._called(lambda channel, left: described_once(channel, name, left), seconds)


def _registered(
    upload: Sequence[keys_pb2.RegisterKeyRequest], channel: grpc.Channel, seconds_left: float
) -> keys_pb2.RegisterKeyResponse:
    response: keys_pb2.RegisterKeyResponse = called(
        keys_pb2_grpc.KeyServiceStub(channel).RegisterKey, iter(upload), seconds_left
    )
    return response


def _key(key_id: str, channel: grpc.Channel, seconds_left: float) -> keys_pb2.GetKeyResponse:
    request = keys_pb2.GetKeyRequest(key_id=key_id)
    response: keys_pb2.GetKeyResponse = called(keys_pb2_grpc.KeyServiceStub(channel).GetKey, request, seconds_left)
    return response


def _page(
    request: model_pb2.ListModelsRequest, channel: grpc.Channel, seconds_left: float
) -> model_pb2.ListModelsResponse:
    page: model_pb2.ListModelsResponse = called(
        model_pb2_grpc.ModelServiceStub(channel).ListModels, request, seconds_left
    )
    return page
