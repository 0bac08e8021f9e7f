"""Steps: what an operation of a client asks for, between one piece of computation and the next.

An operation, such as `Session.score`, is a generator without any I/O. It yields a step, and is
resumed with the answer or the error. `sealserve.client` and `sealserve.aio` each take steps in
their own way.
"""

from collections.abc import Generator
from typing import Any, Literal, NamedTuple, TypeVar, Union

from sealserve._codec.batches import Batch
from sealserve.protocol.model import Model

T = TypeVar("T")


class Call(NamedTuple):
    """Call a method of `sealserve._rpc.methods.Methods`, with retries. The answer is its response.

    Attributes:
        method: the method's name.
        request: its request.
        is_first_contact: whether to give up soon where nothing serves.
    """

    method: str
    request: Any
    is_first_contact: bool = False


class ScoreBatches(NamedTuple):
    """Score batches on streams. The answer is what `Session.joined` makes of the results."""

    batches: list[Batch]
    model: Model


class Exclusive(NamedTuple):
    """Run an operation under a lock, so that threads or tasks do not all ask for the same."""

    lock: Literal["model", "key"]
    operation: "Operation[Any]"


Step = Union[Call, ScoreBatches, Exclusive]  # noqa: UP007  # Exclusive refers to it
Operation = Generator[Step, Any, T]


class Finished(NamedTuple):
    """The result of an operation."""

    result: Any


def advance(operation: Operation[Any], answer: Any, error: BaseException | None) -> Step | Finished:
    """Resume an operation with an answer or an error, and return its next step, or its result."""
    try:
        return operation.send(answer) if error is None else operation.throw(error)
    except StopIteration as end:
        return Finished(end.value)
