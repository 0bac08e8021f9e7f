"""Session: what a client knows between its calls, and what it can do, as operations. No I/O.

A session knows the model, the keys, and the codecs that encrypt under them.
"""

import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.arguments import MAX_PARALLEL, count_of
from sealserve._codec.batches import Batch, Batcher, PredictionMethod, Result, split
from sealserve._codec.codec import Decrypted, EncryptedItem, RowCodec
from sealserve._codec.configurations import MAX_CONFIGURATIONS, Configuration, Configurations
from sealserve._codec.encryptor_pool import EncryptorPool
from sealserve._codec.listing import Listing
from sealserve._codec.messages import item_requests, public_key_messages
from sealserve._codec.offers import choose, is_seeded, quickest_reply_form
from sealserve._codec.operation import Call, Exclusive, Operation, Pause, ScoreBatches
from sealserve._rpc.forks import call_in_child
from sealserve._rpc.pieces import PiecesRequest
from sealserve._rpc.retry import CHANGED, MAX_LOSSES, change_delay_seconds, goes_on
from sealserve._rpc.transfer_time import TransferTime
from sealserve.errors import (
    InputError,
    KeyNotFoundError,
    ModelNotFoundError,
    ParameterError,
    ReplyError,
    SealserveError,
    ServiceError,
    StaleConfigError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import Quantized
from sealserve.protocol.html_table import html_table
from sealserve.protocol.item import EncryptedReply, RefusedRows
from sealserve.protocol.model import Limits, Model
from sealserve.protocol.output import Scored
from sealserve.protocol.pin import Pin
from sealserve.protocol.refusal import refusal_of_integers
from sealserve.protocol.text import printable
from sealserve.protocol.wire import model_from_proto, scores_from_proto, steps_digest, steps_from_bytes
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, model_pb2

AUTO = "auto"
LAYOUT_CHOICES = (AUTO, *(name for name, layout in LAYOUTS.items() if layout.packing is not None))
"""What `Client` takes as its layout."""

_MAX_SCORE_VALUES = 1 << 29  # of 8 bytes, that one call returns
ErrorMode = Literal["raise", "return"]
"""Whether the errors of rows are raised, or returned in the place of their predictions."""

_ERROR_MODES = get_args(ErrorMode)
_MAX_ROW_COUNTS = 1024  # numbers of rows whose codec is kept


class _ScoredRows(NamedTuple):
    """The scores of a call, and the errors of its rows, by index. Rows with an error have none."""

    scored: Scored
    errors: dict[int, SealserveError]


class Session:
    """A model, its codecs and their registered keys. Threads may share a session.

    Args:
        model_name: the model's name; may be empty when the service has one model only.
        layout: one of LAYOUT_CHOICES.
        parameter_set: the name of the only parameter set to use; None for any.
        secret_key: the key to use; by default one is made for each ring on first use.
        clip: move features outside the model's range to its nearest end instead of refusing them.
        seeded: upload ciphertexts of half the size; None where the time of a byte makes it pay.
        connections: how many connections to use; None for as many as the service suggests.
        encrypt_processes: encrypt batches in so many processes beside this one.
        expect: a digest of the model, or the path of a file of its pin; None for any model.
        transfer_time: what the client's calls show of the time of a byte; by default a new one.

    Raises:
        InputError: there is no such layout, a number is too small, or there is no such pin.
    """

    def __init__(
        self,
        model_name: str,
        layout: str,
        secret_key: SecretKey | None,
        *,
        parameter_set: str | None,
        clip: bool,
        seeded: bool | None,
        connections: int | None,
        encrypt_processes: int,
        expect: str | Path | None = None,
        transfer_time: TransferTime | None = None,
    ) -> None:
        if layout not in LAYOUT_CHOICES:
            raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUT_CHOICES)}")
        if connections is not None:
            connections = count_of(connections, "connections", least=1, most=MAX_PARALLEL)
        encrypt_processes = count_of(encrypt_processes, "encrypt_processes", least=0, most=MAX_PARALLEL)
        self._pin = None if expect is None else Pin.read(expect)
        self._model_name = model_name
        self._layout = LAYOUTS.get(layout)
        self._parameter_set = parameter_set
        self._given_key = secret_key
        self._clip = clip
        self._seeded = seeded
        self._transfer_time = transfer_time or TransferTime()
        self._connections = connections
        self._encryptors = EncryptorPool(encrypt_processes) if encrypt_processes else None
        self._renew_lock()
        call_in_child(self._renew_lock)
        self._secret_keys = [] if secret_key is None else [secret_key]  # one for each ring
        self._configurations = Configurations()
        self._registered_key_ids = {""}  # open weights need none

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def close(self) -> None:
        """End the processes that encrypt."""
        if self._encryptors:
            self._encryptors.close()

    def describe(self, kind: str, address: str) -> str:
        """Describe a client in a line, without a call: `kind` is its class."""
        known = self._configurations.current
        model = repr(known.model) if known else repr(self._model_name) if self._model_name else "no model yet"
        return f"{kind}({address!r}, {model})"

    def describe_in_html(self, kind: str, address: str) -> str:
        """Describe a client as a table, with the model if it is known."""
        known = self._configurations.current
        if known is None:
            return html_table(f"{kind} of {address}", [("model", self._model_name or "not asked for yet")])
        return f"<p>{escape(kind)} of {escape(address)}</p>{known.model._repr_html_()}"

    # The model

    def model(self) -> Operation[Model]:
        """Return the service's description of the model. Only the first call asks for it."""
        return (yield from self._configuration()).model

    @property
    def versions(self) -> tuple[Model, ...]:
        """The descriptions of the model that are known: see `Client.versions`."""
        with self._lock:
            return self._configurations.models

    def _configuration(self) -> Operation[Configuration]:
        """Return the configuration to encrypt for."""
        if self._configurations.current is None:
            yield Exclusive("model", self._ask_first())
        return self._current

    def list_models(self, listing: Listing) -> Operation[list[Model]]:
        """Return the next page of the models that the service lists."""
        request = model_pb2.ListModelsRequest(page_token=listing.page_token)
        page = yield Call("list_models", request, is_first_contact=True)
        listing.receive(
            [model.name for model in page.models],
            page.next_page_token,
            byte_count=page.ByteSize(),
            value_count=sum(model.input.feature_count + model.output.score_count for model in page.models),
        )
        return list(map(model_from_proto, page.models))

    @property
    def _current(self) -> Configuration:
        if self._configurations.current is None:
            raise AssertionError("the service has not been asked for the model yet")
        return self._configurations.current

    def _ask_first(self) -> Operation[None]:
        if self._configurations.current is None:  # otherwise another thread has asked
            try:
                yield from self._ask(self._model_name, is_first_contact=True)
            except ModelNotFoundError as error:
                error.served = yield from self._served_names()
                raise

    def _served_names(self) -> Operation[tuple[str, ...]]:
        """Return names of models that the service lists; none where it does not."""
        try:
            page = yield Call("list_models", model_pb2.ListModelsRequest())
        except SealserveError:
            return ()
        return tuple(printable(model.name) for model in page.models)

    def _follow(self, stale: StaleConfigError) -> Operation[Configuration]:
        """Return the configuration that a replica names, which is the current one from then on.

        If it is not known, the service is asked for it. If a replica answers that serves another
        one only, that one is returned.
        """
        with self._lock:
            known = self._configurations.use(stale.current_config_id)
        return known or (yield Exclusive("model", self._ask_for(stale.current_config_id)))

    def _ask_for(self, config_id: str) -> Operation[Configuration]:
        with self._lock:
            known = self._configurations.use(config_id)  # another thread may have asked
        # By its name: the service may have several models by now.
        return known or (yield from self._ask(self._current.model.name, config_id))

    def _ask(self, name: str, config_id: str = "", *, is_first_contact: bool = False) -> Operation[Configuration]:
        """Get a description, and the steps that it names, and use it from then on.

        A replica of another version does not have these steps. If one answers, ask for them again,
        or for its description.
        """
        model = yield from self._described(name, config_id, is_first_contact=is_first_contact)
        for changes in itertools.count():
            try:
                model = yield from self._with_steps(model)
                break
            except StaleConfigError as error:
                changed = error
            yield Pause(change_delay_seconds(changes + 1), changed)
            if goes_on(changes):
                model = yield from self._described(name, changed.current_config_id)
        with self._lock:  # the secret keys stay, as offers of the new model may use them
            return self._configurations.add(model)

    def _described(self, name: str, config_id: str, *, is_first_contact: bool = False) -> Operation[Model]:
        """Return a description of the model, without steps."""
        request = model_pb2.GetModelRequest(model=name, config_id=config_id)
        response = yield Call("get_model", request, is_first_contact)
        model = model_from_proto(response.model)
        if name and model.name != name:
            raise ParameterError(f"the service described model {model.name!r} in place of {name!r}")
        model.check_requirements()
        if self._pin is not None:
            self._pin.check(model)
        return model

    def _with_steps(self, model: Model) -> Operation[Model]:
        """Return the model with the steps that it names, if it names some.

        Raises:
            StaleConfigError: a replica has answered that serves another version.
        """
        if not model.steps_id:
            return model
        steps = next((known.steps for known in self.versions if known.steps_id == model.steps_id), None)
        if steps is None:
            request = model_pb2.GetInputStepsRequest(
                model=model.name, steps_id=model.steps_id, config_id=model.config_id
            )
            data = yield Call("get_input_steps", PiecesRequest(request, model.steps_bytes))
            if steps_digest(data) != model.steps_id:
                raise ParameterError(f"model {model.name!r}: its steps do not have the SHA-256 that it describes")
            steps = steps_from_bytes(data)
        return model.with_steps(steps)

    def stream_count(self, limits: Limits) -> int:
        """Return how many streams to open at a time, each on a connection of its own."""
        return self._connections or limits.suggested_connections

    # Codecs and their keys

    def codec(self, row_count: int) -> RowCodec:
        """Return the codec for so many rows, for the current description of the model.

        Raises:
            ParameterError, SecretKeyError: the model has no offer for them.
        """
        return self._codec_of(self._current, row_count)

    def _codec_of(self, configuration: Configuration, row_count: int) -> RowCodec:
        seconds_a_byte = self._transfer_time.seconds_a_byte
        if (known := configuration.codecs_by_rows.get((row_count, seconds_a_byte))) is not None:
            return known
        with self._lock:
            offer = choose(
                configuration.model,
                row_count,
                self._layout,
                parameter_set=self._parameter_set,
                secret_key=self._given_key,
                seconds_a_byte=seconds_a_byte,
                seeded=self._seeded,
            )
            seeded = is_seeded(offer.layout, seconds_a_byte) if self._seeded is None else self._seeded
            form = quickest_reply_form(offer, seconds_a_byte)
            if (codec := configuration.codecs.get((offer.layout, seeded, form))) is None:
                key = next((key for key in self._secret_keys if key.fits(offer.parameters.parameter_set)), None)
                codec = RowCodec(
                    configuration.model,
                    key,
                    offer=offer,
                    clip=self._clip,
                    seeded=seeded,
                    reply_form=form,
                    encryptors=self._encryptors,
                )
                configuration.codecs[offer.layout, seeded, form] = codec
                if key is None:
                    self._secret_keys.append(codec.secret_key)
            if len(configuration.codecs_by_rows) >= _MAX_ROW_COUNTS:
                configuration.codecs_by_rows.clear()
            configuration.codecs_by_rows[row_count, seconds_a_byte] = codec
            return codec

    def codec_of_model(self, row_count: int) -> Operation[RowCodec]:
        """Return the codec for so many rows, once the model is known."""
        return self._codec_of((yield from self._configuration()), row_count)

    def register_key(self, row_count: int) -> Operation[None]:
        """Register the public encryption key that items of so many rows need, if they need one."""
        codec = yield from self.codec_of_model(row_count)
        yield from self._register(codec)

    def _register(self, codec: RowCodec) -> Operation[None]:
        if codec.key_id not in self._registered_key_ids:
            yield Exclusive("key", self._upload_first(codec))

    def _upload_first(self, codec: RowCodec) -> Operation[None]:
        if codec.key_id not in self._registered_key_ids:  # otherwise another thread has registered it
            yield from self._upload(codec)

    def _register_again(self, codec: RowCodec) -> Operation[None]:
        """Register a key again that the service has lost, unless another thread has done so."""
        yield Exclusive("key", self._upload_missing(codec))

    def _upload_missing(self, codec: RowCodec) -> Operation[None]:
        try:
            yield Call("get_key", keys_pb2.GetKeyRequest(key_id=codec.key_id))
        except KeyNotFoundError:
            pass
        else:
            return
        yield from self._upload(codec)

    def _upload(self, codec: RowCodec) -> Operation[None]:
        name = codec.offer.parameters.parameter_set.name
        yield Call("register_key", public_key_messages(codec.public_key, name))
        self._registered_key_ids.add(codec.key_id)

    # Rows

    def predict(self, method: PredictionMethod, X: Any, errors: ErrorMode) -> Operation[NDArray[Any] | list[Any]]:
        """Return the predictions of rows: see `Client.predict`."""
        if method != "predict":  # which every estimator has
            (yield from self.model()).output.check_method(method)
        scored, failed = yield from self._score(X, errors)
        values: NDArray[Any] = getattr(scored.output, method)(scored.scores)
        return values if errors == "raise" else [failed.get(index, value) for index, value in enumerate(values)]

    def scored(self, X: Any, errors: ErrorMode) -> Operation[Scored | list[Any]]:
        """Return the scores of rows: see `Client.scored`."""
        scored, failed = yield from self._score(X, errors)
        if errors == "raise":
            return scored
        return [failed.get(index, Scored(scored.output, row[None])) for index, row in enumerate(scored.scores)]

    def _score(self, X: Any, errors: ErrorMode) -> Operation[_ScoredRows]:
        """Score rows. If the model changes, or replicas serve several versions, score them again.

        Raises:
            InputError: `errors` is neither "raise" nor "return".
            What `join_scores` raises.
        """
        if errors not in _ERROR_MODES:
            raise _unknown_mode(errors)
        configuration = self._configurations.current or (yield from self._configuration())
        tried, losses = deque[str](maxlen=MAX_CONFIGURATIONS), 0
        for changes in itertools.count():
            try:
                return (yield from self._score_once(configuration, X, errors, is_repeated=changes > 0))
            except CHANGED as error:
                losses += isinstance(error, KeyNotFoundError)
                if losses > MAX_LOSSES:
                    raise
                changed = error
            yield Pause(change_delay_seconds(changes + 1), changed)
            if not isinstance(changed, StaleConfigError):
                codec = self._codec_of(configuration, len(configuration.model.schema.rows(X)))
                yield from self._register_again(codec)
                continue
            tried.append(configuration.model.config_id)
            if changed.current_config_id not in tried or goes_on(changes):
                tried.append(changed.current_config_id)
                configuration = yield from self._follow(changed)
        raise AssertionError("the loop returns or raises")

    def _score_once(
        self, configuration: Configuration, X: Any, errors: ErrorMode, *, is_repeated: bool
    ) -> Operation[_ScoredRows]:
        model = configuration.model
        rows = model.schema.rows(X)
        row_count = len(rows)
        if row_count == 0:
            return _ScoredRows(Scored(model.output, np.empty((0, model.output.score_count))), {})
        if row_count * model.output.score_count > _MAX_SCORE_VALUES:
            raise ParameterError(
                f"{row_count} rows of {model.output.score_count} scores are too many to return at once: use stream"
            )
        in_use = configuration.codecs_by_rows.get((row_count, self._transfer_time.seconds_a_byte))
        codec = in_use or self._codec_of(configuration, row_count)
        quantized, rows_per_item = codec.quantize(rows), codec.offer.rows_per_item
        # The user has looked at a pinned description: its ranges ask for nothing.
        if self._pin is not None and errors == "raise" and quantized.is_refused.any():
            raise codec.refusal(rows)
        if codec.key_id not in self._registered_key_ids:
            yield from self._register(codec)
        if row_count <= rows_per_item:
            item = codec.encrypt(quantized.integers)
            if item.fits_a_message:
                response = yield Call("predict_serialized", item.request())
                decrypted = codec.read(row_count, scores_from_proto(response.scores), quantized.is_refused)
                # Nothing more is sent in any case.
                if decrypted.is_plausible and not np.count_nonzero(quantized.is_refused):
                    return _ScoredRows(Scored(codec.model.output, decrypted.scores), {})
                results = [Result(Batch(0, rows, codec, *quantized), decrypted)]
                return self.join_scores(rows, results, errors)
        # Two streams may reach replicas of two versions, whose labels differ. One stream does not.
        streams = 1 if is_repeated else self.stream_count(model.limits)
        results = yield ScoreBatches(list(split(rows, quantized, codec, rows_per_item)), model, streams)
        return self.join_scores(rows, results, errors)

    def start_stream(self, method: PredictionMethod, rows_per_item: int | None) -> Operation[tuple[Batcher, Model]]:
        """Return the batcher of a stream's rows and the model, once the key is registered.

        Raises:
            InputError: there is no such method, or rows_per_item is below 1.
            NoSuchMethodError: the model's estimator has no such method.
        """
        configuration = yield from self._configuration()
        model = configuration.model
        if rows_per_item is not None:
            rows_per_item = count_of(rows_per_item, "rows_per_item", least=1)
        if method not in get_args(PredictionMethod):
            raise InputError(f"{method!r} is not predict, decision_function or predict_proba")
        model.output.check_method(method)
        codec = self._codec_of(configuration, rows_per_item or 1)
        if rows_per_item is None:
            rows_per_item = self._layout.default_rows_per_item if self._layout else 1
        batcher = Batcher(self.codec, rows_per_item)
        yield from self._register(codec)
        return batcher, model

    def renew(self, batch: Batch, changed: ServiceError) -> Operation[Sequence[Batch]]:
        """Make a batch anew for a replica of another configuration, or after it lost the key.

        The other configuration may need more items for the rows, or have another schema.
        """
        if not isinstance(changed, StaleConfigError):
            yield from self._register_again(batch.codec)
            return [batch]
        codec = self._codec_of((yield from self._follow(changed)), len(batch.rows))
        batcher = Batcher(lambda _: codec, None, first_index=batch.first_index)
        batches = list(batcher.batches(batch.rows))
        yield from self._register(codec)
        return batches

    def join_scores(self, rows: NDArray[Any], results: Sequence[Result], errors: ErrorMode) -> _ScoredRows:
        """Return the scores of all batches in order, or raise.

        Whether all rows are scored again must not depend on what a reply decrypts to, nor on values
        of rows. Hence the errors that depend on them come last.

        Raises:
            ServiceError: the model or its key changed, or, if errors are raised, the service
                refused a batch.
            StaleConfigError: the meaning of the scores changed between two batches.
            InputError: rows are refused, and errors are raised.
            ReplyError: a reply fails a check, errors are raised, and there is no other error.
        """
        in_order = sorted(results, key=attrgetter("batch.first_index"))
        failures = [outcome for _, outcome in in_order if isinstance(outcome, SealserveError)]
        for error in failures:
            if isinstance(error, CHANGED) or (errors == "raise" and not isinstance(error, ReplyError)):
                raise error
        outputs = [batch.codec.model.output for batch, _ in in_order]
        if outputs.count(outputs[0]) < len(outputs):
            raise StaleConfigError(self._current.model.config_id)
        scores = [
            outcome.scores
            if isinstance(outcome, Decrypted) and outcome.is_plausible
            else np.zeros((len(batch.rows), outputs[0].score_count))
            for batch, outcome in in_order
        ]
        scored = Scored(outputs[0], scores[0] if len(scores) == 1 else np.concatenate(scores))
        if errors == "return":
            return _ScoredRows(scored, {index: error for each in in_order for index, error in each.errors.items()})
        if refusing := [batch.codec for batch, _ in in_order if batch.is_refused.any()]:
            raise refusing[0].refusal(rows)
        if not all(isinstance(outcome, Decrypted) and outcome.is_plausible for _, outcome in in_order):
            raise ReplyError
        return _ScoredRows(scored, {})

    def features(self, X: Any) -> Operation[NDArray[np.float64]]:
        """Return the features of rows: see `Client.features`."""
        model = yield from self.model()
        rows = model.schema.rows(X)
        features = model.features(rows, clip=self._clip)
        if not np.isfinite(features).all():
            raise model.refusal(rows, clip=self._clip)
        return features

    # Single items

    def encrypt(self, X: Any, *, keep: bool) -> Operation[EncryptedItem]:
        """Return an item of rows: see `Client.encrypt`."""
        configuration = yield from self._configuration()
        rows = configuration.model.schema.rows(X)
        codec = self._codec_of(configuration, len(rows))
        _check_row_count(codec, len(rows))
        quantized = codec.quantize(rows)
        refused = RefusedRows(places=quantized.is_refused, rows=rows, compose=codec.refusal)
        return self._item(codec, quantized, refused, keep=keep)

    def encrypt_quantized(self, rows: NDArray[np.int64], *, keep: bool) -> Operation[EncryptedItem]:
        """Return an item of rows on the grid: see `Client.encrypt_quantized`."""
        configuration = yield from self._configuration()
        grid = configuration.model.grid
        if not isinstance(rows, np.ndarray) or rows.shape[1:] != grid.minimum.shape or rows.dtype.kind not in "iu":
            raise InputError(f"quantized rows must be an array of integers of shape (rows, {grid.feature_count})")
        codec = self._codec_of(configuration, len(rows))
        _check_row_count(codec, len(rows))
        quantized = grid.admissible_integers(rows)
        compose = partial(refusal_of_integers, grid, names=configuration.model.feature_names)
        refused = RefusedRows(places=quantized.is_refused, rows=rows, compose=compose)
        return self._item(codec, quantized, refused, keep=keep)

    def _item(self, codec: RowCodec, quantized: Quantized, refused: RefusedRows, *, keep: bool) -> EncryptedItem:
        if self._pin is not None and refused.places.any():
            raise refused.error()
        item = codec.encrypt(quantized.integers)
        requests = tuple(item_requests(item)) if keep else ()
        return dataclasses.replace(item, requests=requests, refused=refused)

    def decrypt(self, reply: EncryptedReply, errors: ErrorMode) -> Scored | list[Any]:
        """Decrypt the reply to an item: see `Client.decrypt`."""
        if errors not in _ERROR_MODES:
            raise _unknown_mode(errors)
        if (current := self._configurations.current) is None:  # this client has encrypted nothing
            raise ReplyError
        known = self._configurations.find(reply.header.config_id)
        codec = known.reader_of(reply.header) if known else None
        if codec is None:
            raise StaleConfigError(current.model.config_id)
        refused, output, row_count = reply.refused, codec.model.output, reply.header.row_count
        try:
            decrypted = codec.read(row_count, reply.scores, None if refused is None else refused.places)
        except ReplyError:
            if errors == "raise":
                raise
            decrypted = Decrypted(np.zeros((row_count, output.score_count)), is_plausible=False)
        if errors == "return":
            failed = {} if refused is None else refused.errors()
            of_sound_rows = (
                Scored(output, row[None]) if decrypted.is_plausible else ReplyError() for row in decrypted.scores
            )
            return [failed.get(place, result) for place, result in enumerate(of_sound_rows)]
        if refused is not None and refused.places.any():
            raise refused.error()
        if not decrypted.is_plausible:
            raise ReplyError
        return Scored(output, decrypted.scores)


def _unknown_mode(errors: str) -> InputError:
    return InputError(f"errors={errors!r} is not 'raise' or 'return'")


def _check_row_count(codec: RowCodec, row_count: int) -> None:
    if not 1 <= row_count <= codec.offer.rows_per_item:
        raise InputError(f"an item holds 1 to {codec.offer.rows_per_item} rows, not {row_count}")
