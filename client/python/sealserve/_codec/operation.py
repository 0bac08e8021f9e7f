"""Operation: one task of a client, as a generator that computes and leaves the I/O to its caller.

An operation, such as `Session.score`, yields the actions that it needs, and is resumed with the
answer or the error of each. `sealserve.client` and `sealserve.aio` perform the actions, one with
threads and the other with asyncio.
"""

from collections.abc import Generator
from typing import Any, Literal, NamedTuple, TypeVar, Union

from sealserve._codec.batches import Batch
from sealserve.errors import ServiceError
from sealserve.protocol.model import Model

T = TypeVar("T")


class Call(NamedTuple):
    """Call a method of `sealserve._rpc.methods.Methods`, with retries. The answer is its response.

    Attributes:
        method: the method's name.
        request: its request.
        is_first_contact: whether to give up soon if nothing serves at the address.
    """

    method: str
    request: Any
    is_first_contact: bool = False


class ScoreBatches(NamedTuple):
    """Score batches on streams. The answer is the list of all results, in any order.

    The answer comes when the last result does. Therefore no part of a call is left unsent because
    of what a reply decrypts to.

    Attributes:
        batches: the batches.
        model: the description of the model that they are encrypted for.
        streams: how many streams to open at a time.
    """

    batches: list[Batch]
    model: Model
    streams: int


class Pause(NamedTuple):
    """Wait before rows are sent again that have met a change.

    Changes in a row have as much time as an answer, from the first of them on.

    Attributes:
        seconds: how long to wait.
        change: the last change, which is raised if the time is over.
    """

    seconds: float
    change: ServiceError

    def within(self, seconds_left: float) -> float:
        """Return how long to wait.

        Raises:
            ServiceError: the change, if that would take all the seconds that are left.
        """
        if self.seconds >= seconds_left:
            raise self.change
        return self.seconds


class Exclusive(NamedTuple):
    """Run an operation under a lock, so that only one thread or task at a time asks for a thing."""

    lock: Literal["model", "key"]
    operation: "Operation[Any]"


Action = Union[Call, ScoreBatches, Pause, Exclusive]  # noqa: UP007  # Exclusive refers to it
Operation = Generator[Action, Any, T]


class Finished(NamedTuple):
    """The result of an operation. A coroutine cannot receive it as a StopIteration."""

    result: Any


def advance(operation: Operation[Any], answer: Any, error: BaseException | None) -> Action | Finished:
    """Resume an operation with an answer or an error.

    Returns:
        The operation's next action, or its result.
    """
    try:
        return operation.send(answer) if error is None else operation.throw(error)
    except StopIteration as end:
        return Finished(end.value)
