"""Servicer: the Open Inference Protocol over gRPC, for an `Inference`."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from sealserve import __version__
from sealserve._rpc.cancellation import Cancellation
from sealserve.agent.description import PLATFORM, TensorType, inputs_of, outputs_of, properties_of
from sealserve.agent.inference import Answer, Inference, Request
from sealserve.agent.refusals import Refusal, refusal_of
from sealserve.agent.telemetry import Telemetry
from sealserve.agent.tensors import DATATYPES, MAX_TENSORS, Tensor, TensorHead, to_bytes, to_list
from sealserve.errors import InputError, QuotaExceededError, SealserveError
from sealserve.inference import open_inference_pb2 as pb
from sealserve.inference import open_inference_pb2_grpc

NAME = "sealserve-agent"
EXTENSIONS = ("model_stream_infer", "binary_tensor_data")
MAX_STREAMS = 16
"""Streams at once: each holds two threads as long as its caller likes."""
REQUESTS_A_STREAM = 64
"""Requests of a stream that may be read before their replies are taken."""

# A reply that is late by what it takes to send it would be lost to the deadline.
_REPLY_SECONDS = 0.01
_RETRY_SECONDS = 1.0

T = TypeVar("T")


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers calls. Threads share it.

    Args:
        inference: answers the requests.
        telemetry: counts them.
        workers: has the threads that answer the requests of streams.
    """

    def __init__(self, inference: Inference, telemetry: Telemetry, workers: Executor) -> None:
        self._inference = inference
        self._telemetry = telemetry
        self._workers = workers
        self._streams = threading.BoundedSemaphore(MAX_STREAMS)

    def ServerLive(self, request: pb.ServerLiveRequest, context: grpc.ServicerContext) -> pb.ServerLiveResponse:
        """Say that the agent answers."""
        return self._run("ServerLive", context, lambda: pb.ServerLiveResponse(live=True))

    def ServerReady(self, request: pb.ServerReadyRequest, context: grpc.ServicerContext) -> pb.ServerReadyResponse:
        """Say whether the service answers."""
        return self._run("ServerReady", context, lambda: pb.ServerReadyResponse(ready=is_ready(self._inference)))

    def ModelReady(self, request: pb.ModelReadyRequest, context: grpc.ServicerContext) -> pb.ModelReadyResponse:
        """Say whether the service lists a model."""
        ready = partial(is_ready, self._inference, request.name, request.version)
        return self._run("ModelReady", context, lambda: pb.ModelReadyResponse(ready=ready()))

    def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Name the agent."""
        response = pb.ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS)
        return self._run("ServerMetadata", context, lambda: response)

    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Describe a model."""
        return self._run("ModelMetadata", context, lambda: metadata_of(self._inference, request.name, request.version))

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        """Predict rows."""
        cancellation = Cancellation()
        context.add_callback(cancellation.cancel)
        return self._run("ModelInfer", context, lambda: self._infer(request, context, cancellation))

    def ModelStreamInfer(
        self, requests: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Predict the rows of many requests, several at a time."""
        if not self._streams.acquire(blocking=False):
            _abort(context, refusal_of(QuotaExceededError("streams", _RETRY_SECONDS)))
        try:
            yield from self._replies(requests, context)
        finally:
            self._streams.release()

    def _replies(
        self, requests: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        cancellation, room = Cancellation(), threading.Semaphore(REQUESTS_A_STREAM)
        replies = SimpleQueue[pb.ModelStreamInferResponse | None]()
        context.add_callback(cancellation.cancel)

        def reply(request: pb.ModelInferRequest) -> None:
            replies.put(self._stream_reply(request, context, cancellation))

        def read() -> None:
            """Read requests; then wait until all have been answered."""
            try:
                for request in requests:
                    room.acquire()
                    self._workers.submit(reply, request)
            except grpc.RpcError:  # the caller has broken off
                pass
            for _ in range(REQUESTS_A_STREAM):
                room.acquire()
            replies.put(None)

        threading.Thread(target=read, name="stream", daemon=True).start()
        try:
            while (response := replies.get()) is not None:
                room.release()
                yield response
        finally:
            room.release(REQUESTS_A_STREAM)  # nobody takes the rest

    def _stream_reply(
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext, cancellation: Cancellation
    ) -> pb.ModelStreamInferResponse:
        began = time.perf_counter()
        try:
            response = self._infer(request, context, cancellation)
        except Exception as error:
            refusal = refusal_of(error)
            self._telemetry.end("ModelStreamInfer", began, refusal)
            return pb.ModelStreamInferResponse(
                error_message=refusal.text,
                infer_response=pb.ModelInferResponse(model_name=request.model_name, id=request.id),
            )
        self._telemetry.end("ModelStreamInfer", began)
        return pb.ModelStreamInferResponse(infer_response=response)

    def _infer(
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext, cancellation: Cancellation
    ) -> pb.ModelInferResponse:
        seconds_left = context.time_remaining()
        if seconds_left is not None:
            seconds_left = max(0.0, seconds_left - _REPLY_SECONDS)
        answer = self._inference.answer(_request_of(request), cancellation, seconds_left)
        return _response_of(request, answer)

    def _run(self, method: str, context: grpc.ServicerContext, act: Callable[[], T]) -> T:
        """Answer a call, and count it."""
        began = time.perf_counter()
        try:
            result = act()
        except Exception as error:
            refusal = refusal_of(error)
            self._telemetry.end(method, began, refusal)
            _abort(context, refusal)
            raise AssertionError("abort raises") from None
        self._telemetry.end(method, began)
        return result


def is_ready(inference: Inference, name: str | None = None, version: str = "") -> bool:
    """Tell whether the service answers, and lists a model, or all that are to be served."""
    try:
        if name is None:
            return inference.models.are_ready
        return inference.models.find(name, version, max_age_seconds=0.0) is not None
    except SealserveError:
        return False


def metadata_of(inference: Inference, name: str, version: str) -> pb.ModelMetadataResponse:
    """Return what a model takes and gives.

    Raises:
        SealserveError: what `Models.find` raises.
    """
    model = inference.models.find(name, version)
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=map(_metadata, inputs_of(model)),
        outputs=map(_metadata, outputs_of(model.output)),
        properties=properties_of(model),
    )


def _metadata(tensor: TensorType) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _abort(context: grpc.ServicerContext, refusal: Refusal) -> None:
    context.abort_with_status(refusal.status)


def _request_of(message: pb.ModelInferRequest) -> Request:
    """Read a request.

    Raises:
        InputError: it contradicts itself.
    """
    if max(len(message.inputs), len(message.outputs)) > MAX_TENSORS:
        raise InputError(f"there are more than {MAX_TENSORS:,} inputs or outputs")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InputError(f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs")
    tensors = []
    for place, tensor in enumerate(message.inputs):
        head = TensorHead(tensor.name, tensor.datatype, tuple(tensor.shape))
        if not raw:
            tensors.append(_of_contents(head, tensor.contents))
        elif tensor.HasField("contents"):
            raise head.fault("it has contents beside raw_input_contents: send one of them")
        else:
            tensors.append(head.with_bytes(raw[place]))
    return Request(message.model_name, message.model_version, tensors, [output.name for output in message.outputs])


def _of_contents(head: TensorHead, contents: pb.InferTensorContents) -> Tensor:
    field = DATATYPES[head.datatype].field
    if not field:
        raise head.fault(f"{head.datatype} has no contents: send it in raw_input_contents")
    if other := [found.name for found, _ in contents.ListFields() if found.name != field]:
        raise head.fault(f"the contents of {head.datatype} are in {field}, not in {other[0]}")
    values: Any = getattr(contents, field)
    return head.with_values(values, len(values))


def _response_of(request: pb.ModelInferRequest, answer: Answer) -> pb.ModelInferResponse:
    """Write an answer, in raw form if the request was."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=answer.version, id=request.id)
    for tensor in answer.outputs:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.values.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(to_bytes(tensor))
        else:
            values = to_list(tensor)
            encoded = [value.encode() for value in values] if tensor.datatype == "BYTES" else values
            getattr(output.contents, DATATYPES[tensor.datatype].field).extend(encoded)
    return response
