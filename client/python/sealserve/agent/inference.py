"""Inference: answers requests of the Open Inference Protocol. It knows neither gRPC nor HTTP."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sealserve._rpc.cancellation import Cancellation
from sealserve.agent.description import outputs_of
from sealserve.agent.models import Models, version_of
from sealserve.agent.rows import rows_of
from sealserve.agent.telemetry import Telemetry
from sealserve.agent.tensors import Tensor
from sealserve.errors import InputError, ModelNotFoundError
from sealserve.protocol.output import Scored
from sealserve.protocol.text import quoted

# Of the time that the caller gives. The rest is for the reply: otherwise the caller's deadline
# would pass first, and the caller would not learn what the service's failure was.
_USABLE_SHARE = 0.9

_VALUES: dict[str, Callable[[Scored], NDArray[Any]]] = {
    "label": lambda scored: scored.predictions,
    "prediction": lambda scored: scored.predictions,
    "score": lambda scored: scored.scores,
    "probability": lambda scored: scored.output.predict_proba(scored.scores),
}


@dataclass(frozen=True)
class Request:
    """A request for predictions.

    Attributes:
        model: its name.
        version: that has to answer; "" for any.
        inputs: the tensors.
        outputs: the names of the tensors to return; empty for all.
    """

    model: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """The answer to a request: the version that answered, and the tensors in the order wanted."""

    version: str
    outputs: list[Tensor]


class Inference:
    """Answers requests. Threads share it.

    Args:
        models: the models.
        telemetry: counts rows.
        timeout_seconds: how long an answer may take, if the caller sets no earlier deadline.
    """

    def __init__(self, models: Models, telemetry: Telemetry, timeout_seconds: float) -> None:
        self.models = models
        self._rows = telemetry.rows
        self._timeout_seconds = timeout_seconds

    def answer(self, request: Request, cancellation: Cancellation, seconds_left: float | None = None) -> Answer:
        """Answer a request.

        Args:
            request: the request.
            cancellation: its caller's.
            seconds_left: until the caller's deadline; None if there is none.

        Raises:
            SealserveError: it is refused here or by the service, or there is no answer in time.
        """
        seconds = self._timeout_seconds
        if seconds_left is not None:
            seconds = min(seconds, seconds_left * _USABLE_SHARE)
        end = time.monotonic() + seconds
        client = self.models.client(request.model)
        model = client.known_model(max(0.0, end - time.monotonic()), cancellation)
        if request.version not in ("", model.version):  # the model may have changed since the last rows
            self.models.find(request.model, request.version)
        rows, row_count = rows_of(request.inputs, model.schema)
        _check_outputs(request.outputs, [output.name for output in outputs_of(model.output)])
        scored = client.score(rows, row_count, max(0.0, end - time.monotonic()), cancellation)
        self._rows.labels(request.model).inc(row_count)
        version = model.version if model.output is scored.output else version_of(client, scored)
        if request.version not in ("", version):
            raise ModelNotFoundError(f"{request.model}, version {request.version}")
        types = {output.name: output for output in outputs_of(scored.output)}
        names = request.outputs or list(types)
        _check_outputs(names, list(types))
        return Answer(version, [Tensor(name, types[name].datatype, _VALUES[name](scored)) for name in names])


def _check_outputs(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError if there is no such output, or one is asked for twice."""
    for name in names:
        if name not in known:
            raise InputError(f"there is no output {quoted(name)}: there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise InputError("an output is asked for twice")
