"""Operation: one task of a client, as a generator that computes and leaves the I/O to its caller.

An operation, such as `Session.score`, yields the actions that it needs, and is resumed with the
answer or the error of each. `sealserve.client` and `sealserve.aio` perform the actions, one with
threads and the other with asyncio.
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
        is_first_contact: whether to give up soon if nothing serves at the address.
    """

    method: str
    request: Any
    is_first_contact: bool = False


class ScoreBatches(NamedTuple):
    """Score batches on streams. The answer is the list of all results, in any order.

    The answer comes when the last result does. Therefore no part of a call is left unsent because
    of what a reply decrypts to.
    """

    batches: list[Batch]
    model: Model


class Exclusive(NamedTuple):
    """Run an operation under a lock, so that only one thread or task at a time asks for a thing."""

    lock: Literal["model", "key"]
    operation: "Operation[Any]"


Action = Union[Call, ScoreBatches, Exclusive]  # noqa: UP007  # Exclusive refers to it
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
