"""Mutations: copies of messages with a field changed, and bytes damaged anywhere."""

import itertools
import random
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
Change = Callable[[Message], None]

_INTEGER_BITS = {
    FieldDescriptor.TYPE_INT32: (-31, 31),
    FieldDescriptor.TYPE_SINT32: (-31, 31),
    FieldDescriptor.TYPE_UINT32: (0, 32),
    FieldDescriptor.TYPE_INT64: (-63, 63),
    FieldDescriptor.TYPE_SINT64: (-63, 63),
    FieldDescriptor.TYPE_UINT64: (0, 64),
    FieldDescriptor.TYPE_FIXED64: (0, 64),
    FieldDescriptor.TYPE_ENUM: (-31, 31),
}
_MEMBERS = 3  # of a repeated field, how many are changed one by one
# The tags of two fields that no message has: number 2000, with a varint and with bytes.
_VARINT_TAG, _BYTES_TAG = b"\x80\x7d", b"\x82\x7d"


def endless(
    make: Callable[[random.Random], Iterable[Any]], count: int | None = None, first_seed: int = 0
) -> Iterator[Any]:
    """Take `count` members of iterables, each made after the other with the next seed."""
    seeds = itertools.count(first_seed)
    return itertools.islice(itertools.chain.from_iterable(make(random.Random(seed)) for seed in seeds), count)


def mutants(message: M, source: random.Random) -> Iterator[M]:
    """Yield copies of a message, each with one change: every field, set or not, several ways."""
    for change in list(_changes(message, source)):
        mutant = type(message)()
        mutant.CopyFrom(message)
        change(mutant)
        yield mutant


def disordered(messages: list[M], source: random.Random) -> Iterator[list[M]]:
    """Yield a stream's messages with one of them mutated, lost, repeated or in another's place."""
    for index, message in enumerate(messages):
        before, after = messages[:index], messages[index + 1 :]
        for mutant in mutants(message, source):
            yield [*before, mutant, *after]
        yield before + after
        yield [*before, message, message, *after]
        yield [*after, message, *before]
    yield source.sample(messages, len(messages))


def encoded_otherwise(message: Message, source: random.Random) -> bytes:
    """Encode a message in an unusual way: its fields in any order, and unknown ones between them.

    Protobuf reads the same message from it.
    """
    parts = [
        source.choice((_VARINT_TAG + bytes([source.randrange(128)]), _BYTES_TAG + b"\3" + source.randbytes(3)))
        for _ in range(source.randrange(1, 4))
    ]
    fields = [field.name for field, _ in message.ListFields()]
    for name in fields:
        part = type(message)()
        part.CopyFrom(message)
        for other in fields:
            if other != name:
                part.ClearField(other)
        parts.append(part.SerializeToString())
    source.shuffle(parts)
    return b"".join(parts)


def _changes(message: Message, source: random.Random) -> Iterator[Change]:
    for field in message.DESCRIPTOR.fields:
        yield lambda m, name=field.name: m.ClearField(name)  # type: ignore[misc]
        if field.is_repeated:
            yield from _repeated_changes(message, field, source)
        elif field.message_type:
            yield lambda m, name=field.name: getattr(m, name).SetInParent()  # type: ignore[misc]
            for change in _changes(getattr(message, field.name), source):
                yield lambda m, name=field.name, inner=change: inner(getattr(m, name))  # type: ignore[misc]
        else:
            for value in _values(field, getattr(message, field.name), source):
                yield lambda m, name=field.name, v=value: setattr(m, name, v)  # type: ignore[misc]


def _repeated_changes(message: Message, field: Any, source: random.Random) -> Iterator[Change]:
    members = list(getattr(message, field.name))
    orders: list[Sequence[Any]] = [members * 2, members[::-1], members[:1] * 300, members[1:]]
    if not field.message_type:
        orders += [[*members, value] for value in _values(field, members[0] if members else None, source)]
    for order in orders:
        yield lambda m, name=field.name, kept=order: _replace(m, name, kept)  # type: ignore[misc]
    for index, member in enumerate(members[:_MEMBERS]):
        if field.message_type:
            for change in _changes(member, source):
                yield lambda m, name=field.name, i=index, inner=change: inner(getattr(m, name)[i])  # type: ignore[misc]
        else:
            for value in _values(field, member, source):
                yield lambda m, name=field.name, i=index, v=value: getattr(m, name).__setitem__(i, v)  # type: ignore[misc]


def _replace(message: Message, name: str, members: Sequence[Any]) -> None:
    copies = type(message)()
    getattr(copies, name).extend(members)
    message.ClearField(name)
    message.MergeFrom(copies)


def _values(field: Any, value: Any, source: random.Random) -> list[Any]:
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return [False, True]
        case FieldDescriptor.TYPE_DOUBLE:
            return [0.0, -1.0, 1e308, float("inf"), float("nan"), source.gauss()]
        case FieldDescriptor.TYPE_STRING:
            letters = "".join(source.choices(string.printable, k=source.randrange(1, 200)))
            return ["", "\0", "../../etc/passwd", "\u202eé\U0010ffff", "x" * 100_000, letters, (value or "a")[:-1]]
        case FieldDescriptor.TYPE_BYTES:
            return [damaged(value or b"", source) for _ in range(12)]
    low, high = _INTEGER_BITS[field.type]
    least, greatest = -(2 ** abs(low)) if low else 0, 2**high - 1
    near = [n for n in ((value or 0) - 1, (value or 0) + 1) if least <= n <= greatest]
    return [least, 0, 1, greatest, *near, source.randint(least, greatest), source.randint(0, 100)]


def damaged(data: bytes, source: random.Random) -> bytes:
    """Damage bytes: flip bits, or replace, cut, repeat or insert a part, or replace all."""
    at = source.randrange(len(data) + 1) if source.random() < 0.5 else source.randrange(min(len(data), 160) + 1)
    length = min(source.choice((1, 2, 8, 16, 64, 1000)), len(data) - at)
    new = source.choice((bytes(length), b"\xff" * length, source.randbytes(length)))
    match source.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[at:]
        case 2:
            return data[:at] + new + data[at:]
        case 3:
            return data[:at] + data[at : at + length] + data[at:]
        case 4:
            return data[:at] + data[at + length :]
        case 5:
            return source.randbytes(source.randrange(max(1, 2 * len(data))))
        case 6:
            return data[:at] + new + data[at + length :]
    flipped = bytearray(data)
    for place in source.choices(range(len(data)), k=source.randrange(1, 4)) if data else ():
        flipped[place] ^= 1 << source.randrange(8)
    return bytes(flipped)
