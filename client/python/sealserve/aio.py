"""The client for asyncio: the methods of `sealserve.client.Client`, to be awaited.

>>> from sealserve.aio import AsyncClient
>>> async with AsyncClient("127.0.0.1:50051", model="mnist") as client:
...     labels = await client.predict(X)
...     async for index, label in client.stream(rows):
...         ...

Encryption and decryption run in threads of the loop's default executor, so that the loop is not blocked. What
`sealserve.client` says of secret keys and of scores is true here, too.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from sealserve._codec.batches import Batch, Gatherer, Result, Scored
from sealserve._codec.codec import Exchange
from sealserve._codec.messages import fits_a_message, predict_request
from sealserve._codec.session import Method, Session, predictions
from sealserve._rpc.channel import open_aio_channel, token_metadata
from sealserve._rpc.connections import Connections
from sealserve._rpc.retry import CHANGED, ELSEWHERE, FIRST_CONTACT_SECONDS, Patience
from sealserve._rpc.status import translated
from sealserve._streaming.schedule import MAX_CHANGES
from sealserve._streaming.tasks import AsyncLine, AsyncScoreStream
from sealserve.credentials import Credentials
from sealserve.errors import KeyNotFoundError, ServiceError, StaleConfigError
from sealserve.key_registry import public_key_upload
from sealserve.protocol.address import host_of, is_loopback
from sealserve.protocol.model import Model
from sealserve.protocol.wire import model_from_proto, scores_from_proto
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2_grpc


class AsyncClient:
    """Predictions of one served model.

    Args: those of `sealserve.client.Client`.

    Every method raises errors of `sealserve.errors` only. A client belongs to the event loop that it is first used in;
    tasks may share it.
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
        self._metadata = token_metadata(credentials)
        self._connections = Connections(lambda: open_aio_channel(address, credentials), self._close_later)
        self._closing: set[asyncio.Task[None]] = set()
        self._asking, self._registering = asyncio.Lock(), asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The secret key is gone with the client, unless it was saved."""
        self._connections.close()
        await asyncio.gather(*self._closing)
        await asyncio.to_thread(self._session.close)

    async def model(self) -> Model:
        """Return what the service says of the model."""
        async with self._asking:
            if self._session.known_model is None:
                self._session.learn(await self._described(self._model_name, FIRST_CONTACT_SECONDS))
            return self._session.model

    async def secret_key(self) -> SecretKey:
        """Return the secret key in use for single rows."""
        await self.model()
        return self._session.exchange(1).secret_key

    async def models(self) -> AsyncIterator[Model]:
        """Yield all models that the service lists, ordered by name."""
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_token=token)
            page = await self._called(_list_models, request, FIRST_CONTACT_SECONDS)
            for model in map(model_from_proto, page.models):
                yield model
            token = page.next_page_token
            if not token:
                return

    async def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels, or a regressor's targets, for rows (rows, column_count): an array, sequence or DataFrame.

        Raises:
            InputError: a row is refused; nothing was sent then.
            SealserveError: the service refused, cannot be reached, or answered wrongly.
        """
        output, scores = await self._scored(X)
        return output.predict(scores)

    async def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Score rows: (rows,) for two classes or one target, else (rows, score_count). Raises what predict raises."""
        output, scores = await self._scored(X)
        return output.decision_function(scores)

    async def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict probabilities (rows, classes), where the model's estimator has them. Raises what predict raises.

        Raises:
            NoSuchMethodError: it has none.
        """
        (await self.model()).output.check_probabilities()
        output, scores = await self._scored(X)
        return output.predict_proba(scores)

    async def stream(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        method: Method = "predict",
        rows_per_item: int | None = None,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Predict rows as they come from an iterable, which may be asynchronous: see `Client.stream`.

        An iterable that is not asynchronous is read in a thread, where it may block. Who leaves the stream before its
        end closes it (`contextlib.aclosing`), so that the service's work on it ends, too.
        """
        known = await self.model()
        gatherer = self._session.stream_gatherer(method, rows_per_item)
        await self._register(self._session.exchange(rows_per_item or 1))
        async with aclosing(self._streamed(_gathered(gatherer, rows), known)) as results:
            async for result in results:
                for prediction in predictions(method, result):
                    yield prediction

    async def _scored(self, X: Any) -> Scored:
        """Score rows in order, all under one meaning: again if the model changes on the way."""
        for changes in range(MAX_CHANGES + 1):
            model = await self.model()
            rows = model.schema.rows(X)
            if len(rows) == 0:
                return Scored(model.output, np.empty((0, model.output.score_count)))
            try:
                return await self._scored_once(await asyncio.to_thread(self._session.batches, rows))
            except CHANGED as error:
                if changes == MAX_CHANGES:
                    raise
                if isinstance(error, StaleConfigError):
                    await self._refresh(error)
                else:
                    await self._register_again(self._session.exchange(len(rows)))
        raise AssertionError("it returns or raises")

    async def _scored_once(self, batches: list[Batch]) -> Scored:
        batch, model = batches[0], batches[0].exchange.model
        await self._register(batch.exchange)
        item = batch.exchange.encrypt(batch.quantized)
        if len(batches) > 1 or not fits_a_message(item, model.limits):
            return self._session.joined([result async for result in self._streamed(_each(batches), model)])
        request = await asyncio.to_thread(predict_request, item)
        response = await self._called(_predict, request, self._timeout_seconds)
        reply = scores_from_proto(response.scores)
        return Scored(model.output, await asyncio.to_thread(batch.exchange.decrypt, len(batch.rows), reply))

    async def _streamed(self, batches: AsyncIterator[Batch], model: Model) -> AsyncGenerator[Result, None]:
        lanes = self._lanes or max(1, model.limits.suggested_connections)
        stream = AsyncScoreStream(self._line, lanes, batches, model.limits, self._renewed, self._timeout_seconds)
        async with aclosing(stream.__aiter__()) as results:
            async for result in results:
                yield result

    @contextmanager
    def _line(self, number: int) -> Iterator[AsyncLine]:
        with self._connections.use(number) as channel:
            call = prediction_pb2_grpc.PredictionServiceStub(channel).StreamPredict
            yield AsyncLine(partial(call, metadata=self._metadata), partial(self._connections.replace, channel))

    async def _called(
        self, method: Callable[[grpc.aio.Channel], Callable[..., Any]], request: Any, unanswered_seconds: float
    ) -> Any:
        """Call a method, and again, on another connection where the first is dead, while the time allows."""
        patience = Patience(self._timeout_seconds, unanswered_seconds)
        while True:
            with self._connections.use(0) as channel:
                try:
                    return await method(channel)(request, timeout=patience.seconds_left, metadata=self._metadata)
                except grpc.RpcError as error:
                    failure = translated(error)
                    failure.__cause__ = error
                if isinstance(failure, ELSEWHERE):
                    self._connections.replace(channel)
            if not isinstance(failure, patience.passing):
                raise failure
            await asyncio.sleep(patience.delay_seconds(failure))

    async def _renewed(self, batch: Batch, changed: ServiceError) -> Sequence[Batch]:
        if isinstance(changed, StaleConfigError):
            await self._refresh(changed)
            batches = await asyncio.to_thread(self._session.renewed, batch)
            await self._register(batches[0].exchange)
            return batches
        await self._register_again(batch.exchange)
        return [batch]

    async def _register(self, exchange: Exchange) -> None:
        """Register the public encryption key that an exchange needs, if it needs one, before its first use."""
        async with self._registering:
            if self._session.lacks_key(exchange):
                await self._upload_key(exchange)

    async def _register_again(self, exchange: Exchange) -> None:
        """Register a key that the service said it has no longer, unless it was for another item meanwhile."""
        async with self._registering:
            try:
                await self._called(_get_key, keys_pb2.GetKeyRequest(key_id=exchange.key_id), self._timeout_seconds)
            except KeyNotFoundError:
                await self._upload_key(exchange)

    async def _upload_key(self, exchange: Exchange) -> None:
        upload = public_key_upload(exchange.public_key, exchange.offer.parameters.parameter_set.name)
        await self._called(_register_key, upload, self._timeout_seconds)
        self._session.key_is_registered(exchange)

    async def _refresh(self, stale: StaleConfigError) -> None:
        """Get the model again, unless another task has."""
        async with self._asking:
            known = self._session.model
            if known.config_id != stale.current_config_id:
                # By its name: without one it might no longer be the only model.
                self._session.learn(await self._described(known.name, self._timeout_seconds))

    async def _described(self, name: str, unanswered_seconds: float) -> Model:
        request = model_pb2.GetModelRequest(model=name)
        response = await self._called(_get_model, request, unanswered_seconds)
        return model_from_proto(response.model)

    def _close_later(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.ensure_future(channel.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _get_model(channel: grpc.aio.Channel) -> Any:
    return model_pb2_grpc.ModelServiceStub(channel).GetModel


def _list_models(channel: grpc.aio.Channel) -> Any:
    return model_pb2_grpc.ModelServiceStub(channel).ListModels


def _get_key(channel: grpc.aio.Channel) -> Any:
    return keys_pb2_grpc.KeyServiceStub(channel).GetKey


def _register_key(channel: grpc.aio.Channel) -> Any:
    return keys_pb2_grpc.KeyServiceStub(channel).RegisterKey


def _predict(channel: grpc.aio.Channel) -> Any:
    return prediction_pb2_grpc.PredictionServiceStub(channel).Predict


async def _gathered(gatherer: Gatherer, rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Batch]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            for batch in gatherer.add(row):
                yield batch
        for batch in gatherer.rest():
            yield batch
    else:
        batches = gatherer.batches(rows)
        while (gathered := await asyncio.to_thread(next, batches, None)) is not None:
            yield gathered


async def _each(batches: Iterable[Batch]) -> AsyncIterator[Batch]:
    for batch in batches:
        yield batch
