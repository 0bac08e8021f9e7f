"""AsyncClient: the methods of `sealserve.client.Client`, for asyncio.

>>> from sealserve.aio import AsyncClient
>>> async with AsyncClient("127.0.0.1:50051", model="mnist") as client:
...     labels = await client.predict(X)
...     async for index, label in client.stream(rows):
...         ...

Encryption and decryption run in threads of the loop's default executor, so that they do not block
the loop. The warnings of `sealserve.client` about secret keys and scores apply here, too.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.arguments import count_of, timeout_of
from sealserve._codec.batches import Batch, Batcher, PredictionMethod, Result, predictions
from sealserve._codec.codec import EncryptedItem
from sealserve._codec.listing import Listing
from sealserve._codec.messages import item_requests
from sealserve._codec.operation import Call, Exclusive, Finished, Operation, Pause, ScoreBatches, advance
from sealserve._codec.session import ErrorMode, Session
from sealserve._rpc.calls import send_item_async
from sealserve._rpc.channel import endpoint, open_aio_channel, token_metadata
from sealserve._rpc.connections import Connections, call_async
from sealserve._rpc.methods import Methods
from sealserve._rpc.retry import FIRST_CONTACT_SECONDS
from sealserve._rpc.transfer_time import TransferTime
from sealserve._streaming.tasks import AsyncScoreStream
from sealserve.credentials import Credentials
from sealserve.errors import ClientClosedError, DeadlineError, SealserveError, ServiceError, UsageError
from sealserve.protocol.address import parse_address
from sealserve.protocol.item import EncryptedReply
from sealserve.protocol.model import Model, Offer
from sealserve.protocol.output import Scored
from sealserve.secret_key import SecretKey

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """Predictions of one served model.

    Args: those of `sealserve.client.Client`.

    Every method raises errors of `sealserve.errors` only. A client belongs to the event loop that
    it is first used in; tasks may share it. In another loop its methods raise UsageError.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        credentials: Credentials | None = None,
        secret_key: SecretKey | None = None,
        layout: str = "auto",
        parameter_set: str | None = None,
        clip: bool = False,
        timeout_seconds: float = 60.0,
        connections: int | None = None,
        seeded: bool | None = None,
        encrypt_processes: int = 0,
        expect: str | Path | None = None,
    ) -> None:
        transfer_time = TransferTime(is_local=parse_address(address).is_local)
        self._session = Session(
            model,
            layout,
            secret_key,
            parameter_set=parameter_set,
            clip=clip,
            seeded=seeded,
            connections=connections,
            encrypt_processes=encrypt_processes,
            expect=expect,
            transfer_time=transfer_time,
        )
        self._address = address
        self._timeout_seconds = timeout_of(timeout_seconds)
        metadata = token_metadata(credentials)
        self._connections = Connections(
            lambda: Methods(open_aio_channel(address, credentials), metadata, endpoint=endpoint(address, credentials)),
            self._close_later,
            transfer_time,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._locks = {"model": asyncio.Lock(), "key": asyncio.Lock()}

    def __repr__(self) -> str:
        return self._session.describe("AsyncClient", self._address)

    def _repr_html_(self) -> str:
        return self._session.describe_in_html("AsyncClient", self._address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, and end the processes that encrypt: see `Client.close`."""
        if self._loop in (None, asyncio.get_running_loop()):  # only their own loop can close connections
            self._connections.close()
            await asyncio.gather(*self._closing)
        await asyncio.to_thread(self._session.close)

    async def model(self) -> Model:
        """Return the service's description of the model."""
        return await self._run(self._session.model())

    @property
    def versions(self) -> tuple[Model, ...]:
        """The descriptions of the model that the client has met: see `Client.versions`."""
        return self._session.versions

    async def secret_key(self) -> SecretKey:
        """Return the secret key in use for single rows."""
        return (await self._run(self._session.codec_of_model(1))).secret_key

    async def offer(self, row_count: int = 1) -> Offer:
        """Return the offer that the client uses for so many rows in one call."""
        return (await self._run(self._session.codec_of_model(row_count))).offer

    async def models(self) -> AsyncIterator[Model]:
        """Yield all models that the service lists, ordered by name: see `Client.models`."""
        listing = Listing(self._timeout_seconds)
        while not listing.is_complete:
            began = time.monotonic()
            models = await self._run(self._session.list_models(listing), listing.seconds_left)
            listing.spend(time.monotonic() - began)
            for model in models:
                yield model

    @overload
    async def predict(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[Any]: ...

    @overload
    async def predict(
        self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None
    ) -> list[Any]: ...

    async def predict(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> NDArray[Any] | list[Any]:
        """Predict labels, or a regressor's targets.

        Args:
            X: rows (rows, column_count): an array, DataFrame, sparse matrix or sequence of rows. A
                Series in a sequence is matched by its labels. If the model says what its columns
                take (`model.schema.columns`), it may be a dictionary of columns or a sequence of
                dictionaries, too, and columns are matched by name in any order.
            errors: "raise" an error if a row has no prediction. Or "return" a list, which has for
                each row its prediction or, as a value, its error: that the row is refused, that a
                reply fails a check, or what the service says of the row's item.
            timeout_seconds: how long the answer may take; by default the client's.

        Raises:
            InputError: rows are refused. The text names them. Values that are not finite or out of
                range are refused after the answer: until then admissible rows travel in their
                place, so that the service learns nothing from a refusal.
            NotFiniteError, OutOfRangeError: InputErrors, if the values are the reason. If there are
                both reasons, it is a NotFiniteError, whose text says which row has which.
            SealserveError: the service refused, cannot be reached, or answered wrongly.
        """
        return await self._run(self._session.predict("predict", X, errors), timeout_seconds)

    @overload
    async def decision_function(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64]: ...

    @overload
    async def decision_function(
        self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None
    ) -> list[Any]: ...

    async def decision_function(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64] | list[Any]:
        """Score rows: (rows,) for two classes or one target, else (rows, score_count).

        Raises:
            NoSuchMethodError: the estimator has no decision_function.
            SealserveError: what `predict` raises.
        """
        return await self._run(self._session.predict("decision_function", X, errors), timeout_seconds)

    @overload
    async def predict_proba(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64]: ...

    @overload
    async def predict_proba(
        self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None
    ) -> list[Any]: ...

    async def predict_proba(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64] | list[Any]:
        """Predict probabilities (rows, classes), where the model's estimator has them.

        Raises:
            NoSuchMethodError: the estimator has no probabilities.
            SealserveError: what `predict` raises.
        """
        return await self._run(self._session.predict("predict_proba", X, errors), timeout_seconds)

    @overload
    async def scored(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> Scored: ...

    @overload
    async def scored(self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None) -> list[Any]: ...

    async def scored(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> Scored | list[Any]:
        """Score rows once: predictions, scores and probabilities together. See `Client.scored`."""
        return await self._run(self._session.scored(X, errors), timeout_seconds)

    async def stream(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        method: PredictionMethod = "predict",
        rows_per_item: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Predict rows as they come from an iterable of either kind: see `Client.stream`.

        An iterable that is not asynchronous is read in a thread, where it may block. A caller that
        leaves the stream before its end must close it (`contextlib.aclosing`), so that the
        service's work on it ends, too.
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        batcher, model = await self._run(self._session.start_stream(method, rows_per_item), seconds)
        streams = self._session.stream_count(model.limits)
        async with aclosing(self._score_batches(_batches(batcher, rows), model, streams, seconds)) as results:
            async for result in results:
                for prediction in predictions(method, result):
                    yield prediction

    async def features(self, X: Any) -> NDArray[np.float64]:
        """Compute the features of rows: see `Client.features`."""
        return await self._run(self._session.features(X))

    # Single items: encryption, sending and decryption apart

    async def register_key(self, row_count: int = 1, *, timeout_seconds: float | None = None) -> None:
        """Register the key that items of so many rows need, if any: see `Client.register_key`."""
        await self._run(self._session.register_key(row_count), timeout_seconds)

    async def encrypt(self, X: Any, *, keep: bool = False) -> EncryptedItem:
        """Return an item of rows, which can be sent any number of times: see `Client.encrypt`.

        Unless `keep`, each `send` encrypts all rows before it sends the first message.
        """
        return await self._run(self._session.encrypt(X, keep=keep))

    async def encrypt_quantized(self, rows: NDArray[np.int64], *, keep: bool = False) -> EncryptedItem:
        """Return an item of rows on the model's grid: see `Client.encrypt_quantized`."""
        return await self._run(self._session.encrypt_quantized(rows, keep=keep))

    async def send(
        self, item: EncryptedItem, *, timeout_seconds: float | None = None, connection: int = 0
    ) -> EncryptedReply:
        """Send an item once, in a call of its own, and return the reply: see `Client.send`."""
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        self._check_loop()
        requests = await asyncio.to_thread(lambda: tuple(item_requests(item)))
        with self._connections.use(count_of(connection, "connection", least=0)) as methods:
            reply = await send_item_async(
                methods,
                requests,
                seconds,
                header=item.header,
                piece_count=item.piece_count,
                max_piece_bytes=item.max_piece_bytes,
                in_one_message=item.fits_a_message,
            )
        return dataclasses.replace(reply, refused=item.refused)

    @overload
    async def decrypt(self, reply: EncryptedReply, *, errors: Literal["raise"] = "raise") -> Scored: ...

    @overload
    async def decrypt(self, reply: EncryptedReply, *, errors: Literal["return"]) -> list[Any]: ...

    async def decrypt(self, reply: EncryptedReply, *, errors: ErrorMode = "raise") -> Scored | list[Any]:
        """Decrypt the reply to an item of this client: see `Client.decrypt`."""
        if self._connections.is_closed:
            raise ClientClosedError
        return await asyncio.to_thread(self._session.decrypt, reply, errors)

    # Operations

    async def _run(self, operation: Operation[T], timeout_seconds: float | None = None) -> T:
        """Perform the actions of an operation and return its result. It computes in threads.

        Its time is that of `Client._run`.
        """
        self._check_loop()
        if self._connections.is_closed:
            raise ClientClosedError
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        deadline, changes_end = time.monotonic() + seconds, math.inf
        answer: Any = None
        error: SealserveError | None = None
        while True:
            action = await asyncio.to_thread(advance, operation, answer, error)
            if isinstance(action, Finished):
                result: T = action.result
                return result
            answer = error = None
            try:
                if isinstance(action, ScoreBatches):
                    batches = self._score_batches(_each(action.batches), action.model, action.streams, seconds)
                    async with aclosing(batches) as results:
                        answer = [result async for result in results]
                    deadline = time.monotonic() + seconds
                elif isinstance(action, Pause):
                    changes_end = min(changes_end, time.monotonic() + seconds)
                    await asyncio.sleep(action.within(min(deadline, changes_end) - time.monotonic()))
                else:
                    answer = await self._answer(action, max(0.0, deadline - time.monotonic()))
            except SealserveError as failure:
                error = failure

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise UsageError(
                "an AsyncClient belongs to the event loop that it is first used in: make another in this loop"
            )

    async def _answer(self, action: Call | Exclusive, seconds: float) -> Any:
        if isinstance(action, Call):
            unanswered = FIRST_CONTACT_SECONDS if action.is_first_contact else seconds
            return await call_async(self._connections, action.method, action.request, seconds, unanswered)
        deadline, lock = time.monotonic() + seconds, self._locks[action.lock]
        try:
            await asyncio.wait_for(lock.acquire(), seconds)
        except TimeoutError:
            raise DeadlineError("the answer did not come within timeout_seconds") from None
        try:
            return await self._run(action.operation, max(0.0, deadline - time.monotonic()))
        finally:
            lock.release()

    async def _score_batches(
        self, batches: AsyncIterator[Batch], model: Model, streams: int, seconds: float
    ) -> AsyncGenerator[Result, None]:
        async def renew(batch: Batch, changed: ServiceError) -> Sequence[Batch]:
            return await self._run(self._session.renew(batch, changed), seconds)

        stream = AsyncScoreStream(self._connections, streams, batches, model.limits, renew, seconds)
        async with aclosing(stream.__aiter__()) as results:
            async for result in results:
                yield result

    def _close_later(self, connection: Methods) -> None:
        closing = asyncio.ensure_future(connection.channel.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _batches(batcher: Batcher, rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Batch]:
    """Yield the batches of rows."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            for batch in batcher.add(row):
                yield batch
        for batch in batcher.flush():
            yield batch
    else:
        batches = batcher.batches(rows)
        while (next_batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield next_batch


async def _each(batches: Iterable[Batch]) -> AsyncIterator[Batch]:
    for batch in batches:
        yield batch
