"""Client: predictions on encrypted rows, with the methods of a scikit-learn estimator.

>>> from sealserve.client import Client
>>> with Client("127.0.0.1:50051", model="mnist") as client:
...     labels = client.predict(X)

Features are encrypted and scores decrypted on this machine, with a secret key that never leaves it.
Do not send scores, errors or decisions to retry back to the service's operator: see SECURITY.md.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.arguments import count_of, timeout_of
from sealserve._codec.batches import Batch, PredictionMethod, Result, predictions
from sealserve._codec.codec import EncryptedItem
from sealserve._codec.listing import Listing
from sealserve._codec.messages import item_requests
from sealserve._codec.operation import Call, Exclusive, Operation, Pause, ScoreBatches
from sealserve._codec.session import ErrorMode, Session
from sealserve._rpc.calls import send_item
from sealserve._rpc.cancellation import Cancellation
from sealserve._rpc.channel import endpoint, open_channel
from sealserve._rpc.connections import Connections, call
from sealserve._rpc.forks import call_in_child
from sealserve._rpc.methods import Methods
from sealserve._rpc.retry import FIRST_CONTACT_SECONDS
from sealserve._rpc.transfer_time import TransferTime
from sealserve._streaming.threads import ScoreStream
from sealserve.credentials import Credentials
from sealserve.errors import ClientClosedError, DeadlineError, SealserveError, ServiceError
from sealserve.protocol.address import parse_address
from sealserve.protocol.item import EncryptedReply
from sealserve.protocol.model import Model, Offer
from sealserve.protocol.output import Scored
from sealserve.secret_key import SecretKey

__all__ = ["Client", "EncryptedItem", "EncryptedReply", "Scored"]

T = TypeVar("T")


class Client:
    """Predictions of one served model.

    Args:
        address: HOST:PORT of the service, or dns:///HOST:PORT, ipv4:HOST:PORT,..., ipv6:[HOST]:PORT
            or unix:PATH. Calls are balanced over all addresses of a name or a list.
        model: the model's name; may be empty when the service has one model only.
        credentials: certificates and a token. By default there are none: the client speaks TLS to
            other machines, and plaintext to this one.
        secret_key: the key to use. By default the client makes one on first use, which lives as
            long as the client.
        layout: "row" for the least delay of single rows, or "column" for the most rows a second.
            The default, "auto", decides by the number of rows, the costs that the service
            publishes, and how long bytes take.
        parameter_set: the name of the parameter set of one of the model's offers
            (`offer.parameters.parameter_set.name`). The client then uses this offer only. By
            default it uses the offer that the service prefers for the layout.
        clip: move features outside the model's range to its nearest end. By default they are
            refused.
        timeout_seconds: how long an answer may take, 60 seconds by default; infinity for no limit.
            A method's own `timeout_seconds` replaces it for one call.
        connections: how many connections to open, at least 1. By default there are as many as the
            service suggests, which is one for each of its processes.
        seeded: upload ciphertexts of half the size, or about a third where they can be packed (see
            `Offer.ciphertext_forms`). Encryption then takes twice the time, and the service's work
            takes longer, too. By default the client does so where its calls show that the bytes
            take longer than that: below about 0.7 Gbit/s for single rows, 0.5 for batches. Until
            they have shown it, it does so to other machines.
        encrypt_processes: how many processes beside this one encrypt batches, none by default. They
            are spawned: a program that uses them must have its entry under
            `if __name__ == "__main__"`.
        expect: the model to expect: a digest of 64 hexadecimal digits, or the path of a file that
            `sealserve models show --save` wrote. If the service describes another, every method
            raises UnexpectedModelError, and nothing that depends on a feature is sent.

    Every method raises errors of `sealserve.errors` only. Threads may share a client. In a forked
    child a client opens connections of its own; a stream that was begun before the fork ends there.

    Raises:
        InputError: the address is malformed, there is no such layout, a number is out of range, or
            `expect` is neither a digest nor such a file.
        ParameterError: the model has no offer of that layout and parameter set. The first method
            that needs an offer raises it.
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
        self._connections = Connections(
            lambda: Methods(open_channel(address, credentials), endpoint=endpoint(address, credentials)),
            lambda connection: connection.channel.close(),
            transfer_time,
        )
        self._renew_locks()
        call_in_child(self._renew_locks)

    def __repr__(self) -> str:
        return self._session.describe("Client", self._address)

    def _repr_html_(self) -> str:
        return self._session.describe_in_html("Client", self._address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the processes that encrypt.

        All methods and properties raise ClientClosedError from then on. Save `secret_key` first to
        use it again, and keep `model` if you need it.
        """
        self._connections.close()
        self._session.close()

    @property
    def model(self) -> Model:
        """The service's description of the model."""
        return self._run(self._session.model())

    @property
    def versions(self) -> tuple[Model, ...]:
        """The descriptions of the model that the client has met, the latest last; at most 8.

        There are several after a change, or while replicas of the service serve several versions.
        """
        return self._session.versions

    @property
    def secret_key(self) -> SecretKey:
        """The secret key in use for single rows."""
        return self._run(self._session.codec_of_model(1)).secret_key

    def offer(self, row_count: int = 1) -> Offer:
        """Return the offer that the client uses for so many rows in one call."""
        return self._run(self._session.codec_of_model(row_count)).offer

    def models(self) -> Iterator[Model]:
        """Yield all models that the service lists, ordered by name. `expect` is not for them.

        Raises:
            ParameterError: the list is too long, or a description makes no sense.
            SealserveError: the service refused, or took longer than the client's timeout.
        """
        listing = Listing(self._timeout_seconds)
        while not listing.is_complete:
            began = time.monotonic()
            models = self._run(self._session.list_models(listing), listing.seconds_left)
            listing.spend(time.monotonic() - began)
            yield from models

    @overload
    def predict(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[Any]: ...

    @overload
    def predict(self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None) -> list[Any]: ...

    def predict(
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
        return self._run(self._session.predict("predict", X, errors), timeout_seconds)

    @overload
    def decision_function(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64]: ...

    @overload
    def decision_function(
        self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None
    ) -> list[Any]: ...

    def decision_function(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64] | list[Any]:
        """Score rows: (rows,) for two classes or one target, else (rows, score_count).

        Raises:
            NoSuchMethodError: the estimator has no decision_function.
            SealserveError: what `predict` raises.
        """
        return self._run(self._session.predict("decision_function", X, errors), timeout_seconds)

    @overload
    def predict_proba(
        self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64]: ...

    @overload
    def predict_proba(
        self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None
    ) -> list[Any]: ...

    def predict_proba(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> NDArray[np.float64] | list[Any]:
        """Predict probabilities (rows, classes), where the model's estimator has them.

        Raises:
            NoSuchMethodError: the estimator has no probabilities.
            SealserveError: what `predict` raises.
        """
        return self._run(self._session.predict("predict_proba", X, errors), timeout_seconds)

    @overload
    def scored(self, X: Any, *, errors: Literal["raise"] = "raise", timeout_seconds: float | None = None) -> Scored: ...

    @overload
    def scored(self, X: Any, *, errors: Literal["return"], timeout_seconds: float | None = None) -> list[Any]: ...

    def scored(
        self, X: Any, *, errors: ErrorMode = "raise", timeout_seconds: float | None = None
    ) -> Scored | list[Any]:
        """Score rows once, and return predictions, scores and probabilities together.

        Raises what predict raises.

        Returns:
            `predictions`, as of predict; `scores`, float64 (rows, score_count); `probabilities`, as
            of predict_proba, or None where the model has none. If errors are returned, there is one
            such result for each row, of one row, or its error.
        """
        return self._run(self._session.scored(X, errors), timeout_seconds)

    def stream(
        self,
        rows: Iterable[Any],
        *,
        method: PredictionMethod = "predict",
        rows_per_item: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Generator[tuple[int, Any], None, None]:
        """Predict rows as they come from an iterable, which may be endless or larger than memory.

        The client resumes a stream that breaks, or that is silent for much longer than its answers
        took. It sends rows without a result again, on another connection if the first one is dead.
        No index comes twice.

        Args:
            rows: rows, each (column_count,). A table (an array, DataFrame or sparse matrix) is its
                rows, and is read in blocks, also if it is memory-mapped.
            method: the method whose result to yield for each row: "predict", "decision_function" or
                "predict_proba".
            rows_per_item: how many rows to put into an item, at most the offer's rows_per_item.
                Rows of one item share ciphertexts, so that each costs less. The default is 1, for
                the least delay. With layout "column" it is as many as the offer takes.
            timeout_seconds: how long the stream may make no progress; by default the client's.

        Yields:
            (index, result), in the order in which rows finish. The result is an error, as a value,
            if the row is refused, its reply fails a check or its item has failed for good.

        Raises:
            TransportError, QuotaExceededError, DrainingError, KeyStoreUnavailableError: there was
                no progress for timeout_seconds.
            SealserveError: the service refuses the client, or answers wrongly.
            Exception: what iterating over `rows` raises, after the results of the rows before.

        The service can see when the caller takes results, if it takes them slowly, and when it
        leaves the stream: let neither depend on results. A `for` loop that ends early closes the
        stream. A caller that keeps the stream closes it by itself (`contextlib.closing`).
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        batcher, model = self._run(self._session.start_stream(method, rows_per_item), seconds)
        streams = self._session.stream_count(model.limits)
        with closing(self._score_batches(batcher.batches(rows), model, streams, seconds)) as results:
            for result in results:
                yield from predictions(method, result)

    def features(self, X: Any) -> NDArray[np.float64]:
        """Compute the features of rows: float64 (rows, feature_count), on this machine.

        They are what the model's published steps make of the columns, before they are rounded onto
        the grid. Without steps they are the columns. Nothing that depends on them is sent.

        Raises:
            InputError: a column or a step refuses rows, or a feature is not finite. Whether the
                features are within the grid's ranges, `predict` says.
            SealserveError: the client does not know the model yet, and cannot get it.
        """
        return self._run(self._session.features(X))

    # Single items: encryption, sending and decryption apart

    def register_key(self, row_count: int = 1, *, timeout_seconds: float | None = None) -> None:
        """Register the key that items of so many rows need, if they need one.

        Predictions register it by themselves; `send` does not.

        Raises:
            SealserveError: the service refused or cannot be reached.
        """
        self._run(self._session.register_key(row_count), timeout_seconds)

    def encrypt(self, X: Any, *, keep: bool = False) -> EncryptedItem:
        """Return an item of rows, which can be sent any number of times.

        Args:
            X: rows (1..rows_per_item, column_count), as predict takes them; see `offer` for
                rows_per_item.
            keep: encrypt now, and send the same ciphertexts each time. By default each `send`
                encrypts the rows anew.

        A row that is not finite or out of range becomes a dummy of the item. `decrypt` says so.

        Raises:
            InputError: the rows do not fit the model's columns, or there are too many for an item.
            SealserveError: the client does not know the model yet, and cannot get it.
        """
        return self._run(self._session.encrypt(X, keep=keep))

    def encrypt_quantized(self, rows: NDArray[np.int64], *, keep: bool = False) -> EncryptedItem:
        """Return an item of rows on the model's grid; see `encrypt` for the rest.

        Args:
            rows: int64 (1..rows_per_item, feature_count), each feature within
                0..`model.grid.levels`. A row beyond them becomes a dummy.
            keep: encrypt now, and send the same ciphertexts each time.
        """
        return self._run(self._session.encrypt_quantized(rows, keep=keep))

    def send(self, item: EncryptedItem, *, timeout_seconds: float | None = None, connection: int = 0) -> EncryptedReply:
        """Send an item once, in a call of its own, and return the reply. There are no retries.

        Args:
            item: what `encrypt` returned.
            timeout_seconds: how long the reply may take; by default the client's.
            connection: the number of the connection to use, from 0; it is opened on its first use.

        Raises:
            ReplyError: the reply has missing or surplus pieces.
            KeyNotFoundError: the key is not registered, or no longer: call `register_key`.
            StaleConfigError: the model has changed since the item was encrypted.
            SealserveError: the service refused, or cannot be reached.
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        with self._connections.use(count_of(connection, "connection", least=0)) as methods:
            reply = send_item(
                methods,
                item_requests(item),
                seconds,
                header=item.header,
                piece_count=item.piece_count,
                max_piece_bytes=item.max_piece_bytes,
                in_one_message=item.fits_a_message,
            )
        return dataclasses.replace(reply, refused=item.refused)

    @overload
    def decrypt(self, reply: EncryptedReply, *, errors: Literal["raise"] = "raise") -> Scored: ...

    @overload
    def decrypt(self, reply: EncryptedReply, *, errors: Literal["return"]) -> list[Any]: ...

    def decrypt(self, reply: EncryptedReply, *, errors: ErrorMode = "raise") -> Scored | list[Any]:
        """Decrypt the reply to an item of this client.

        Args:
            reply: what `send` returned.
            errors: "raise" an error if a row has no score. Or "return" a list, which has for each
                row its `Scored`, of one row, or its error: that the row was refused, or that the
                reply fails a check.

        Raises:
            InputError: rows of the item were refused. The text names them.
            ReplyError: the reply fails a check, or is to an item of another client. Nothing of it
                is kept.
            StaleConfigError: the item was encrypted for a description that the client no longer
                has.
        """
        if self._connections.is_closed:
            raise ClientClosedError
        return self._session.decrypt(reply, errors)

    # Operations

    def _run(
        self,
        operation: Operation[T],
        timeout_seconds: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> T:
        """Perform the actions of an operation and return its result.

        Its calls have `timeout_seconds` together. They begin anew after batches were scored, whose
        time is that without progress. `cancellation` may end them from another thread.
        """
        if self._connections.is_closed:
            raise ClientClosedError
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_of(timeout_seconds)
        deadline, changes_end = time.monotonic() + seconds, math.inf
        answer: Any = None
        error: SealserveError | None = None
        while True:
            try:
                action = operation.send(answer) if error is None else operation.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = error = None
            try:
                seconds_left = max(0.0, deadline - time.monotonic())
                if isinstance(action, Call):
                    unanswered = FIRST_CONTACT_SECONDS if action.is_first_contact else seconds_left
                    answer = call(
                        self._connections, action.method, action.request, seconds_left, unanswered, cancellation
                    )
                elif isinstance(action, ScoreBatches):
                    batches = iter(action.batches), action.model, action.streams, seconds, cancellation
                    with closing(self._score_batches(*batches)) as results:
                        answer = list(results)
                    deadline = time.monotonic() + seconds
                elif isinstance(action, Pause):
                    changes_end = min(changes_end, time.monotonic() + seconds)
                    time.sleep(action.within(min(deadline, changes_end) - time.monotonic()))
                else:
                    answer = self._run_exclusively(action, deadline, cancellation)
            except SealserveError as failure:
                error = failure

    def _renew_locks(self) -> None:
        self._locks = {"model": threading.Lock(), "key": threading.Lock()}

    def _run_exclusively(self, action: Exclusive, deadline: float, cancellation: Cancellation | None) -> Any:
        """Run an operation under its lock, until a time of time.monotonic()."""
        lock = self._locks[action.lock]
        if not lock.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
            raise DeadlineError("the answer did not come within timeout_seconds")
        try:
            return self._run(action.operation, max(0.0, deadline - time.monotonic()), cancellation)
        finally:
            lock.release()

    def _score_batches(
        self,
        batches: Iterator[Batch],
        model: Model,
        streams: int,
        seconds: float,
        cancellation: Cancellation | None = None,
    ) -> Generator[Result, None, None]:
        def renew(batch: Batch, changed: ServiceError) -> Sequence[Batch]:
            return self._run(self._session.renew(batch, changed), seconds)

        stream = ScoreStream(self._connections, streams, batches, model.limits, renew, seconds)
        with nullcontext() if cancellation is None else cancellation.ending(stream.cancel):
            yield from stream
