"""The kinds of hostile messages: what sends each, and what share of all it is.

- mutated fields: unary calls whose message has a field changed, is damaged anywhere, or means the
  same in another encoding. The scores of the latter are checked.
- mutated items of streams: the same for the items of StreamPredict.
- raw frames: HTTP/2 frames that a service has to ignore, odd headers, then a frame that ends the
  connection.
- rapid resets: calls that are reset as soon as they have begun.
- slow bodies: calls on hundreds of connections whose message comes byte by byte.

A message is a request, an item of a stream, or a frame. If the service ends a connection early, or
a stream, what was sent after that does not count.
"""

import asyncio
import contextlib
import hashlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.credentials import Credentials
from sealserve.errors import SealserveError
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve.protocol.wire import key_header_to_proto, scores_from_proto
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from tests.support import http2, odd_frames
from tests.support.ends import end_of, ends_of
from tests.support.mutations import damaged, encoded_otherwise, endless, mutants
from tests.support.raw import RawClient, as_message

FEATURES, CLASSES = 64, 10
WEIGHTS = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
ROW = np.random.default_rng(1).integers(0, 256, FEATURES) / 255
PREDICT, STREAM, GET_MODEL, REGISTER_KEY = (
    f"/sealserve.v1.{name}".encode()
    for name in (
        "PredictionService/Predict",
        "PredictionService/StreamPredict",
        "ModelService/GetModel",
        "KeyService/RegisterKey",
    )
)
SMALL: dict[str, Any] = {
    "ModelService/GetModel": model_pb2.GetModelRequest(model="model"),
    "ModelService/ListModels": model_pb2.ListModelsRequest(page_size=1, page_token="a"),
    "KeyService/GetKey": keys_pb2.GetKeyRequest(key_id="a" * 64),
    "KeyService/ListKeys": keys_pb2.ListKeysRequest(page_size=1, page_token="a" * 64),
    "KeyService/DeleteKey": keys_pb2.DeleteKeyRequest(key_id="a" * 64),
}
CHECKED = "scores checked"
BROKEN_OFF = "broken off by the client"
TIMEOUT_SECONDS = 120.0  # nothing takes so long unless it hangs, even on a machine that others use
ITEMS_A_STREAM, FRAMES_A_CONNECTION, RESETS_A_CONNECTION, SLOW_CONNECTIONS = 50, 100, 100, 200


def plaintext_scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores of the plaintext model."""
    return rows @ WEIGHTS.T


class HostileError(SealserveError):
    """The service did what it must not; the text says what."""


@dataclass(frozen=True)
class Peer:
    """A hostile tenant."""

    address: str
    token: str

    @property
    def credentials(self) -> Credentials:
        """Of the tenant."""
        return Credentials(token=self.token)

    def fields(self, path: bytes) -> dict[bytes, bytes]:
        """The header fields of a call."""
        return http2.header_fields(path, authorization=f"Bearer {self.token}")

    @contextlib.contextmanager
    def raw_client(self) -> Iterator[RawClient]:
        """A client whose key is registered meanwhile."""
        with (
            KeyRegistry(self.address, credentials=self.credentials) as registry,
            RawClient(self.address, credentials=self.credentials) as raw,
        ):
            parameter_set = raw.codec.offer.parameters.parameter_set.name
            kind = KeyKind.PUBLIC_ENCRYPTION_KEY
            registry.register(raw.codec.public_key, kind=kind, parameter_set=parameter_set)
            yield raw
            registry.delete(raw.codec.key_id)


def mutated_fields(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Make unary calls; return how many ended with each status, and how many were checked."""
    checked = list[str]()
    with peer.raw_client() as raw:
        good, put_key = raw.request(ROW), _put_key(raw)
        messages: dict[str, Any] = {"PredictionService/Predict": good, "KeyService/PutKey": put_key, **SMALL}
        seed = source.randrange(1 << 32)
        mutated = {name: endless(partial(mutants, one), None, seed) for name, one in messages.items()}

        def calls() -> Iterator[tuple[str, bytes, bool]]:
            for _ in range(count):
                kind = source.random()
                name = "PredictionService/Predict" if kind < 0.55 else "KeyService/PutKey" if kind < 0.6 else ""
                name = name or source.choice(list(SMALL))
                if kind < 0.08:
                    yield name, encoded_otherwise(good, source), True
                elif source.random() < 0.8:
                    yield name, next(mutated[name]).SerializeToString(), False
                else:
                    yield name, damaged(messages[name].SerializeToString(), source), False

        def send(call: tuple[str, bytes, bool]) -> None:
            name, data, is_good = call
            (reply,) = raw.call(name, data)
            if is_good:
                response = prediction_pb2.PredictResponse.FromString(reply)
                _check_scores(raw, scores_from_proto(response.scores))
                checked.append(name)

        ends = ends_of(send, calls())
        raw.call("KeyService/DeleteKey", keys_pb2.DeleteKeyRequest(key_id=put_key.header.key_id).SerializeToString())
    return ends + Counter({CHECKED: len(checked)})


def mutated_items(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Send items on one stream after the other; return how many ended with each error, or none."""
    ends = Counter[str]()
    with peer.raw_client() as raw:
        good = raw.request(ROW)
        mutated = endless(partial(mutants, as_message(1, good)), None, source.randrange(1 << 32))
        left = count
        while left:
            messages, good_ids = _items(good, mutated, source, min(left, ITEMS_A_STREAM))
            sent, of_stream = _stream(raw, messages, good_ids)
            ends.update(of_stream)
            left -= sent
    return ends


def _items(
    good: prediction_pb2.PredictRequest,
    mutated: Iterator[prediction_pb2.StreamPredictRequest],
    source: random.Random,
    most: int,
) -> tuple[list[bytes], set[int]]:
    """Make at most so many messages of a stream; return them, and the ids of the good items."""
    messages, good_ids = list[bytes](), set[int]()
    for item_id in range(1000, 1000 + most):
        kind = source.random()
        if kind < 0.1:
            good_ids.add(item_id)
            messages.append(encoded_otherwise(as_message(item_id, good), source))
        elif kind < 0.11:  # which mostly ends the stream
            messages.append(damaged(as_message(item_id, good).SerializeToString(), source))
            break
        else:
            message = next(mutated)
            if message.item_id == 1:
                message.item_id = item_id
            messages.append(message.SerializeToString())
            if message.item_id > item_id:  # ids ascend: all others on the stream would be refused
                break
    return messages, good_ids


def _stream(raw: RawClient, messages: list[bytes], good_ids: set[int]) -> tuple[int, Counter[str]]:
    """Send messages on a stream; return how many were taken from here, and how the items ended."""
    ends, sent = Counter[str](), [0]

    def requests() -> Iterator[bytes]:
        for message in messages:
            sent[0] += 1
            yield message

    def receive() -> None:
        call = raw.channel.stream_stream(STREAM.decode(), bytes, prediction_pb2.StreamPredictResponse.FromString)
        for reply in call(requests(), timeout=TIMEOUT_SECONDS):
            end = reply.WhichOneof("end")
            if end == "error":
                ends[reply.error.WhichOneof("detail")] += 1
            if end == "done":
                ends["scores"] += 1
                if reply.item_id in good_ids:
                    _check_scores(raw, scores_from_proto(reply.scores))
                    ends[CHECKED] += 1

    status = end_of(receive)
    ends[f"stream {status}"] += 1
    if ends["internal"]:
        raise HostileError("an item has failed with an internal error")
    if status == "OK" and ends[CHECKED] < len(good_ids):
        raise HostileError(f"{len(good_ids)} good items of a stream have {ends[CHECKED]} scores: {dict(ends)}")
    return max(1, sent[0]), ends


def raw_frames(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Send frames that are ignored, odd calls, and at last a frame that ends the connection."""
    ends, left = Counter[str](), count
    fields = peer.fields(GET_MODEL)
    while left:
        frame_count = max(0, min(left - 3, source.randrange(1, 2 * FRAMES_A_CONNECTION)))
        data = http2.literal_preface() + http2.request(1, http2.header_block(fields), b"")
        for number in range(frame_count):
            is_call = source.random() < 0.1
            data += (
                odd_frames.odd_call(2 * number + 3, fields, source) if is_call else odd_frames.ignored_frame(1, source)
            )
        last = 2 * frame_count + 3
        data += http2.request(last, http2.header_block(fields), b"")
        found = http2.Ends()
        with http2.connected(peer.address, TIMEOUT_SECONDS) as connection, _broken_connections():
            connection.sendall(data)
            found.receive_until(connection, last)
            if last in found.by_stream:
                connection.sendall(odd_frames.fatal_frame(last + 2, fields, source))
                connection.shutdown(socket.SHUT_WR)
                found.receive_until(connection, 0)
        was_answered = last in found.by_stream
        left -= min(left, frame_count + 3) if was_answered else 1
        ends.update(_calls(found))
        ends[f"connection {found.by_stream.get(0, 'reset')}"] += 1
        ends["frames ignored or answered"] += frame_count if was_answered else 0
    return ends


def rapid_resets(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Begin calls and reset each at once; one at the end of each connection shows that it lives."""
    ends, left = _cancelled(peer, source, count // 50), count - count // 50
    headers = {path: http2.header_block(peer.fields(path)) for path in (PREDICT, STREAM, GET_MODEL, REGISTER_KEY)}
    while left:
        reset_count = min(left - 1, RESETS_A_CONNECTION)
        data = http2.literal_preface()
        for number in range(reset_count):
            stream_id, path = 2 * number + 1, source.choice(list(headers))
            body = source.choice((b"", source.randbytes(source.randrange(1, 50))))
            whole = http2.request(stream_id, headers[path], body)
            begun = http2.frame(http2.HEADERS, http2.END_HEADERS, stream_id, headers[path])
            reset = http2.frame(http2.RST_STREAM, 0, stream_id, source.randrange(14).to_bytes(4, "big"))
            data += (whole if source.random() < 0.3 else begun) + reset
        last = 2 * reset_count + 1
        data += http2.request(last, headers[GET_MODEL], b"")
        found = http2.Ends()
        with http2.connected(peer.address, TIMEOUT_SECONDS) as connection, _broken_connections():
            connection.sendall(data)
            found.receive_until(connection, last)
        if last in found.by_stream:
            left -= reset_count + 1
            ends["reset"] += reset_count + 1 - len(found.by_stream)
        else:
            left -= 1
            ends[f"connection {found.by_stream.get(0, 'reset')}"] += 1
        ends.update(_calls(found))
    return ends


def _calls(found: http2.Ends) -> Iterator[str]:
    """Name the ends of calls; none may say that the service failed.

    gRPC itself ends calls with INTERNAL if it does not understand their headers or frames.
    """
    for stream_id, end in found.by_stream.items():
        if end in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"):
            if stream_id in found.with_request_id:
                raise HostileError(f"the service has ended a call with {end}")
            end += " (gRPC itself)"
        if stream_id:
            yield f"call {end}"


def _cancelled(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Send whole good requests, and cancel each soon afterwards."""
    with peer.raw_client() as raw:
        good, ends = raw.request(ROW), Counter[str]()
        for _ in range(count):
            call = raw.predictions.Predict.future(good, timeout=TIMEOUT_SECONDS)
            time.sleep(source.random() / 200)
            call.cancel()
            ends[f"cancelled: {call.code().name}"] += 1
    return ends


def slow_bodies(peer: Peer, source: random.Random, count: int) -> Counter[str]:
    """Begin calls on many connections and send the message of each byte by byte."""
    return asyncio.run(_SlowBodies(peer, source, count).run())


class _SlowBodies:
    """Connections that always have a slow call, until so many calls have begun."""

    def __init__(self, peer: Peer, source: random.Random, count: int) -> None:
        self._source, self._left = source, count
        self._host, _, self._port = peer.address.rpartition(":")
        self._headers = [http2.header_block(peer.fields(path)) for path in (PREDICT, STREAM, REGISTER_KEY)]
        self._ends = Counter[str]()
        self._all_begun = asyncio.Event()

    async def run(self) -> Counter[str]:
        await asyncio.gather(*(self._connect() for _ in range(SLOW_CONNECTIONS)))
        return self._ends

    async def _connect(self) -> None:
        while self._left:
            reader, writer = await asyncio.open_connection(self._host, int(self._port))
            try:
                await self._call(reader, writer)
            except ConnectionError:
                self._ends["connection reset"] += 1
            finally:
                writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Make one call after the other on a connection, until it or all has ended."""
        found, stream_id = http2.Ends(), 1
        writer.write(http2.literal_preface())
        found.receive(await reader.read(1 << 16))
        # The service ends connections that do not acknowledge its settings.
        writer.write(http2.frame(http2.SETTINGS, http2.ACK, 0, b""))
        while self._left and 0 not in found.by_stream:
            self._left -= 1
            if not self._left:
                self._all_begun.set()
            start = b"\0" + (100_000).to_bytes(4, "big")
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, stream_id, self._source.choice(self._headers)))
            writer.write(http2.frame(http2.DATA, 0, stream_id, start))
            end = time.monotonic() + self._source.uniform(5, 40)
            while self._left and time.monotonic() < end and not {0, stream_id} & found.by_stream.keys():
                writer.write(http2.frame(http2.DATA, 0, stream_id, self._source.randbytes(1)))
                with contextlib.suppress(TimeoutError):
                    found.receive(await asyncio.wait_for(reader.read(1 << 16), 1.0))
            self._ends[found.by_stream.get(stream_id) or found.by_stream.get(0) or BROKEN_OFF] += 1
            if stream_id not in found.by_stream:
                writer.write(http2.frame(http2.RST_STREAM, 0, stream_id, bytes(4)))
            else:  # it was refused, or took too long
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._all_begun.wait(), self._source.uniform(2, 8))
            stream_id += 2


@contextlib.contextmanager
def _broken_connections() -> Iterator[None]:
    """Let the service close a connection at any time. It may not fall silent."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError:
        pass


@dataclass(frozen=True)
class Kind:
    """A kind of hostile messages: what sends a number of them, and its share of all."""

    send: Callable[[Peer, random.Random, int], Counter[str]]
    share: float


KINDS = {
    "mutated fields": Kind(mutated_fields, 0.1),
    "mutated items of streams": Kind(mutated_items, 0.14),
    "raw frames": Kind(raw_frames, 0.37),
    "rapid resets": Kind(rapid_resets, 0.37),
    "slow bodies": Kind(slow_bodies, 0.02),
}


def _put_key(raw: RawClient) -> keys_pb2.PutKeyRequest:
    """A good request to register another key than that of the client."""
    parameter_set = raw.codec.offer.parameters.parameter_set
    key = SecretKey.generate(parameter_set).public_encryption_key
    header = KeyHeader(
        key_id=hashlib.sha256(key).hexdigest(),
        kind=KeyKind.PUBLIC_ENCRYPTION_KEY,
        parameter_set=parameter_set.name,
        byte_count=len(key),
    )
    return keys_pb2.PutKeyRequest(header=key_header_to_proto(header), data=key)


def _check_scores(raw: RawClient, scores: list[EncryptedScores]) -> None:
    found = raw.codec.decrypt(1, scores)
    if np.abs(found - plaintext_scores(ROW)).max() > raw.codec.offer.score_error_bound + 1e-9:
        raise HostileError("the scores of a good item are wrong")
