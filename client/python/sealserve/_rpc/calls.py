"""Calls: one attempt each, with gRPC's failures as errors of `sealserve.errors`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from sealserve._rpc.methods import Methods
from sealserve._rpc.status import translated
from sealserve.protocol.item import EncryptedReply, EncryptedScores, ItemHeader
from sealserve.protocol.wire import error_from_proto, scores_from_proto


def called(method: Callable[..., Any], request: Any, timeout_seconds: float) -> Any:
    """Call a method that has one response.

    Raises:
        SealserveError: the call failed.
    """
    try:
        return method(request, timeout=timeout_seconds)
    except grpc.RpcError as error:
        raise translated(error) from error


def send_item(
    methods: Methods, header: ItemHeader, requests: Iterable[bytes], timeout_seconds: float, *, in_one_message: bool
) -> EncryptedReply:
    """Send an item in a call of its own and return the reply.

    Args:
        methods: of the connection to use.
        header: the item's.
        requests: the serialized messages of the item.
        timeout_seconds: how long the reply may take.
        in_one_message: whether the item and its reply travel in one message each way.

    Raises:
        SealserveError: the call or the item failed.
    """
    sent = _ItemCall(header)
    requests = sent.counted(requests)
    try:
        if in_one_message:
            return sent.add(methods.predict_serialized(next(requests), timeout=timeout_seconds)).reply
        call = methods.stream_predict_serialized(requests, timeout=timeout_seconds)
        try:
            for response in call:
                sent.add(response)
        finally:
            call.cancel()  # nothing more is sent of an item that was refused
        return sent.reply
    except grpc.RpcError as error:
        raise translated(error) from error


async def send_item_async(
    methods: Methods, header: ItemHeader, requests: Iterable[bytes], timeout_seconds: float, *, in_one_message: bool
) -> EncryptedReply:
    """Do what `send_item` does, for asyncio."""
    sent = _ItemCall(header)
    requests = sent.counted(requests)
    try:
        if in_one_message:
            return sent.add(await methods.predict_serialized(next(requests), timeout=timeout_seconds)).reply
        call = methods.stream_predict_serialized(requests, timeout=timeout_seconds)
        try:
            async for response in call:
                sent.add(response)
        finally:
            call.cancel()
        return sent.reply
    except grpc.RpcError as error:
        raise translated(error) from error


class _ItemCall:
    """What has been sent and received of an item in a call of its own."""

    def __init__(self, header: ItemHeader) -> None:
        self._header = header
        self._request_bytes = self._reply_bytes = 0
        self._server_seconds = 0.0
        self._scores: list[EncryptedScores] = []

    def counted(self, requests: Iterable[bytes]) -> Iterator[bytes]:
        """Yield messages and count their bytes."""
        for request in requests:
            self._request_bytes += len(request)
            yield request

    def add(self, response: Any) -> "_ItemCall":
        """Add a response of either method.

        Raises:
            ServiceError: the response says that the item failed.
        """
        if "error" in response.DESCRIPTOR.fields_by_name and response.HasField("error"):
            raise error_from_proto(response.error)
        self._reply_bytes += response.ByteSize()
        self._scores += scores_from_proto(response.scores)
        self._server_seconds += response.done.server_seconds
        return self

    @property
    def reply(self) -> EncryptedReply:
        """The reply, of all responses so far."""
        return EncryptedReply(
            header=self._header,
            scores=self._scores,
            request_bytes=self._request_bytes,
            reply_bytes=self._reply_bytes,
            server_seconds=self._server_seconds,
        )
