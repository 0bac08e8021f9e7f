"""Agents in this process, on free ports of loopback, and callers of them."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from numpy.typing import NDArray

from sealserve.agent.caller_token import Token
from sealserve.agent.http_listener import serving
from sealserve.agent.inference import Inference
from sealserve.agent.listener import Listener
from sealserve.agent.models import ModelClient, Models
from sealserve.agent.rest import RestApplication
from sealserve.agent.servicer import InferenceServicer
from sealserve.agent.telemetry import Telemetry
from sealserve.agent.tensors import DATATYPES, Tensor, TensorHead, to_bytes
from sealserve.inference import open_inference_pb2 as pb
from sealserve.inference import open_inference_pb2_grpc
from tests.support.serving import HANG_SECONDS

_TYPES = {dtype.dtype: name for name, dtype in DATATYPES.items() if dtype.dtype is not None and name != "BF16"}


@dataclass(frozen=True)
class Agent:
    """A running agent.

    Attributes:
        address: of gRPC.
        http_port: of REST.
        stub: calls it.
        models: its models.
    """

    address: str
    http_port: int
    stub: open_inference_pb2_grpc.GRPCInferenceServiceStub
    models: Models

    def infer(self, model: str, *inputs: Any, seconds: float = HANG_SECONDS, **options: Any) -> "Predicted":
        """Ask for predictions of arrays, or of tensors as `typed` and `raw` make them."""
        message = request(model, *inputs, **options)
        return Predicted(self.stub.ModelInfer(message, timeout=seconds))


class Predicted:
    """A response, with its outputs as arrays."""

    def __init__(self, message: pb.ModelInferResponse) -> None:
        self.message = message
        self.outputs: dict[str, NDArray[Any]] = {}
        for place, output in enumerate(message.outputs):
            head = TensorHead(output.name, output.datatype, tuple(output.shape))
            if message.raw_output_contents:
                self.outputs[output.name] = head.with_bytes(message.raw_output_contents[place]).values
            else:
                values: Any = getattr(output.contents, DATATYPES[output.datatype].field)
                self.outputs[output.name] = head.with_values(values, len(values)).values

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.outputs[name]


def request(
    model: str,
    *inputs: Any,
    outputs: Sequence[str] = (),
    names: Sequence[str] = (),
    version: str = "",
    id: str = "",  # noqa: A002  # the protocol's name
    is_raw: bool = True,
) -> pb.ModelInferRequest:
    """Make a request of arrays, raw or typed. Arrays of objects are strings."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    message.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs)
    for place, values in enumerate(inputs):
        datatype = "BYTES" if values.dtype == object else _TYPES[values.dtype]
        name = names[place] if names else "rows"
        tensor = message.inputs.add(name=name, datatype=datatype, shape=values.shape)
        if is_raw:
            message.raw_input_contents.append(to_bytes(Tensor(name, datatype, values)))
        else:
            listed = values.ravel().tolist()
            encoded = [text.encode() for text in listed] if datatype == "BYTES" else listed
            getattr(tensor.contents, DATATYPES[datatype].field).extend(encoded)
    return message


def reason(error: grpc.RpcError) -> tuple[str, str]:
    """The status and the reason of a failed call."""
    call: Any = error
    packed = dict(call.trailing_metadata() or ())["grpc-status-details-bin"]
    (details,) = Status.FromString(packed).details
    info = ErrorInfo()
    assert details.Unpack(info)
    assert info.domain == "agent.sealserve"
    return call.code().name, info.reason


@contextlib.contextmanager
def running_agent(
    target: str,
    *,
    models: Sequence[str] = (),
    token: str | None = None,
    address: str = "127.0.0.1:0",
    timeout_seconds: float = HANG_SECONDS,
    **options: Any,
) -> Iterator[Agent]:
    """Run an agent of a service in this process.

    Args:
        target: the service's address.
        models: the names of those to serve; empty for all.
        token: that its callers have to send; None: they need none.
        address: where to take gRPC.
        timeout_seconds: how long an answer may take.
        options: of the clients.
    """
    served = Models(lambda name: ModelClient(target, model=name, timeout_seconds=timeout_seconds, **options), models)
    telemetry, known = Telemetry(), None if token is None else Token(token)
    inference = Inference(served, telemetry, timeout_seconds)
    with ThreadPoolExecutor(16) as workers, contextlib.closing(served):
        listener = Listener(address, InferenceServicer(inference, telemetry, workers), known)
        listener.start()
        application = RestApplication(inference, telemetry, known)
        try:
            with grpc.insecure_channel(listener.address) as channel, serving(application, 0, 1.0) as port:
                stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
                yield Agent(listener.address, port, stub, served)
        finally:
            listener.stop(1.0)


def strings(values: Sequence[str]) -> NDArray[np.object_]:
    """A column of strings, as `request` takes it."""
    return np.array(values, object)
