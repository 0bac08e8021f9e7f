"""The client: scikit-learn's words for a model that scores encrypted rows.

>>> from sealserve.client import Client
>>> with Client("127.0.0.1:50051", model="mnist") as client:
...     labels = client.predict(X)

Features are encrypted and scores decrypted on this machine, with a secret key that never leaves it. Do not send
scores, errors or decisions to retry back to the service's operator: see SECURITY.md.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, get_args

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._calls import called, described, retried, scored
from sealserve._channel import open_channel
from sealserve._encryptor_pool import EncryptorPool
from sealserve._exchange import Exchange, choose
from sealserve._stream import Batch, Scored, ScoreStream
from sealserve.address import host_of, is_loopback
from sealserve.credentials import Credentials
from sealserve.errors import InputError, KeyNotFoundError, SealserveError, ServiceError, StaleConfigError
from sealserve.he.parameters import Layout
from sealserve.key_registry import register_public_key
from sealserve.keys import SecretKey
from sealserve.model import Model
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2_grpc
from sealserve.wire import model_from_proto

Method = Literal["predict", "decision_function", "predict_proba"]
LayoutChoice = Literal["auto", "row", "column"]

_LAYOUTS = {"auto": None, "row": Layout.ROW, "column": Layout.COLUMN}

_FOLLOWED_CHANGES = 4


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
            default single rows to other machines. For batches it pays on links below 400 Mbit/s.
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
        layout: LayoutChoice = "auto",
        clip: bool = False,
        timeout_seconds: float = 60.0,
        connections: int | None = None,
        seeded: bool | None = None,
        encrypt_processes: int = 0,
    ) -> None:
        self._address = address
        self._model_name = model
        self._credentials = credentials
        if layout not in _LAYOUTS:
            raise InputError(f"{layout!r} is not auto, row or column")
        self._layout = _LAYOUTS[layout]
        self._given_key = secret_key
        self._secret_keys = [] if secret_key is None else [secret_key]  # one a ring
        self._clip = clip
        self._timeout_seconds = timeout_seconds
        self._connections = connections
        self._seeded = seeded
        self._is_near = is_loopback(host_of(address))
        if encrypt_processes < 0:
            raise InputError("encrypt_processes is at least 0")
        self._encryptors = EncryptorPool(encrypt_processes) if encrypt_processes else None
        self._lock = threading.RLock()
        self._channels: list[grpc.Channel] = []
        self._model: Model | None = None
        self._exchanges: dict[Layout, Exchange] = {}
        self._registered = set[bytes]()  # public encryption keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The secret key is gone with the client, unless it was saved."""
        with self._lock:
            for channel in self._channels:
                channel.close()
            self._channels.clear()
            if self._encryptors:
                self._encryptors.close()

    @property
    def model(self) -> Model:
        """What the service says of the model."""
        with self._lock:
            if self._model is None:
                self._model = self._described(self._model_name)
            return self._model

    @property
    def secret_key(self) -> SecretKey:
        """The secret key in use for single rows."""
        return self._exchange(1).secret_key

    def models(self) -> Iterator[Model]:
        """Yield all models that the service lists, ordered by name."""
        token = ""
        while True:
            stub = model_pb2_grpc.ModelServiceStub(self._channel(0))
            request = model_pb2.ListModelsRequest(page_token=token)
            page = retried(partial(called, stub.ListModels, request), self._timeout_seconds)
            yield from map(model_from_proto, page.models)
            token = page.next_page_token
            if not token:
                return

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels, or a regressor's targets, for rows (rows, feature_count): an array, sequence or DataFrame.

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
        self, rows: Iterable[Any], *, method: Method = "predict", rows_per_item: int = 1
    ) -> Iterator[tuple[int, Any]]:
        """Predict rows as they come from an iterable, which may be endless or live.

        Args:
            rows: each (feature_count,).
            method: what a result is: that of predict, decision_function or predict_proba for the row.
            rows_per_item: rows to gather before they are sent. One by one by default, for the least delay; more, up to
                the offer's rows_per_item, share ciphertexts and so cost less each.

        Yields:
            (index, result), as they finish; the error, as a value, where a row or its item failed.

        Raises:
            TransportError: the connection broke or the service fell silent.
            What `rows` raises, after the results of the rows before.
        """
        if rows_per_item < 1:
            raise InputError("rows_per_item is at least 1")
        if method not in get_args(Method):
            raise InputError(f"{method!r} is not predict, decision_function or predict_proba")
        if method == "predict_proba":
            self.model.output.check_probabilities()
        for batch, result in self._streamed(self._gathered(rows, rows_per_item)):
            if isinstance(result, SealserveError):
                yield from ((batch.first_index + i, result) for i in range(len(batch.rows)))
            else:
                yield from enumerate(getattr(result.output, method)(result.scores), batch.first_index)

    def _gathered(self, rows: Iterable[Any], rows_per_item: int) -> Iterator[Batch]:
        """Gather rows into batches; a row that is refused makes a batch of its own, with its error."""
        gathered: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        first_index, exchange = 0, self._exchange(rows_per_item)

        def flushed() -> Iterator[Batch]:
            if gathered:
                features, quantized = map(np.concatenate, zip(*gathered, strict=True))
                gathered.clear()
                yield Batch(first_index, features, exchange, quantized)

        for index, row in enumerate(rows):
            if not gathered:
                first_index, exchange = index, self._exchange(rows_per_item)
            try:
                features = exchange.model.features([row])
                gathered.append((features, exchange.quantize(features, clip=self._clip)))
            except InputError as error:
                yield from flushed()
                yield Batch.refused(index, exchange, error)
            if len(gathered) >= min(rows_per_item, exchange.offer.rows_per_item):
                yield from flushed()
        yield from flushed()

    def _scored(self, X: Any) -> Scored:
        """Score rows in order."""
        model = self.model
        rows = model.features(X)
        if len(rows) == 0:
            return Scored(model.output, np.empty((0, model.output.score_count)))
        exchange = self._exchange(len(rows))
        quantized = exchange.quantize(rows, clip=self._clip)
        per_item = exchange.offer.rows_per_item
        if len(rows) <= per_item:
            try:
                return self._score(exchange, quantized)
            except StaleConfigError as error:
                return self._rescored(rows, error)
        batches = (
            Batch(first, rows[first : first + per_item], exchange, quantized[first : first + per_item])
            for first in range(0, len(rows), per_item)
        )
        results = dict[int, Scored]()
        for batch, result in self._streamed(batches):
            if isinstance(result, SealserveError):
                raise result
            results[batch.first_index] = result
        try:
            return self._joined([results[first] for first in sorted(results)])
        except StaleConfigError as error:
            return self._rescored(rows, error)

    def _joined(self, results: Sequence[Scored]) -> Scored:
        output = results[0].output
        if any(result.output != output for result in results):  # the model has changed half-way through
            raise StaleConfigError(self.model.config_id)
        return Scored(output, np.concatenate([result.scores for result in results]))

    def _streamed(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Scored | SealserveError]]:
        limits = self.model.limits
        connections = self._connections or limits.suggested_connections
        calls = [
            prediction_pb2_grpc.PredictionServiceStub(self._channel(number)).StreamPredict
            for number in range(connections)
        ]
        return iter(ScoreStream(calls, batches, limits, self._rescored, self._timeout_seconds))

    def _rescored(self, rows: NDArray[np.float64], error: ServiceError) -> Scored:
        """Score rows again after the model's configuration has changed, or the service was busy.

        A few changes are followed, as a service's processes do not change at the same instant; then one is an error.
        """
        for _ in range(_FOLLOWED_CHANGES):
            if isinstance(error, StaleConfigError):
                self._refresh(error)
            exchange = self._exchange(len(rows))
            quantized, per_item = exchange.quantize(rows, clip=self._clip), exchange.offer.rows_per_item
            items = (quantized[first : first + per_item] for first in range(0, len(rows), per_item))
            try:
                return self._joined([self._score(exchange, item) for item in items])
            except StaleConfigError as stale:
                error = stale
        raise error

    def _score(self, exchange: Exchange, quantized_rows: NDArray[np.int64]) -> Scored:
        """Score the rows of one item: in one message each way if they fit, else on a stream of their own."""
        item, model = exchange.encrypt(quantized_rows), exchange.model
        try:
            reply = scored(self._channel(0), item, model.limits, self._timeout_seconds)
        except KeyNotFoundError:
            self._register(exchange)
            reply = scored(self._channel(0), item, model.limits, self._timeout_seconds)
        return Scored(model.output, exchange.decrypt(len(quantized_rows), reply))

    def _register(self, exchange: Exchange) -> None:
        """Register the public encryption key: on first use, or because the service has it no longer."""
        register_public_key(
            self._channel(0), exchange.public_key, exchange.offer.parameters.parameter_set.name, self._timeout_seconds
        )
        self._registered.add(exchange.public_key)

    def _exchange(self, row_count: int) -> Exchange:
        """Return what encrypts and decrypts so many rows."""
        with self._lock:
            offer = choose(self.model, row_count, self._layout, secret_key=self._given_key)
            if (exchange := self._exchanges.get(offer.layout)) is None:
                key = next((key for key in self._secret_keys if key.fits(offer.parameters.parameter_set)), None)
                seeded = offer.layout is Layout.ROW and not self._is_near if self._seeded is None else self._seeded
                exchange = Exchange(self.model, key, offer=offer, seeded=seeded, encryptors=self._encryptors)
                if key is None:
                    self._secret_keys.append(exchange.secret_key)
                if exchange.public_key and exchange.public_key not in self._registered:
                    self._register(exchange)
                self._exchanges[offer.layout] = exchange
            return exchange

    def _refresh(self, stale: StaleConfigError) -> None:
        """Get the model again, unless another thread has; secret keys stay as long as an offer can use them."""
        with self._lock:
            if self.model.config_id != stale.current_config_id:
                self._model = self._described(self.model.name)  # without a name it might no longer be the only model
                self._exchanges.clear()

    def _described(self, name: str) -> Model:
        return described(self._channel(0), name, self._timeout_seconds)

    def _channel(self, number: int) -> grpc.Channel:
        with self._lock:
            while len(self._channels) <= number:
                self._channels.append(open_channel(self._address, self._credentials))
            return self._channels[number]
