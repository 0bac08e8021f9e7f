"""Bit packing: integers of equally many bits, one behind the other, without a bit between them.

Value i takes the bits i b .. i b + b - 1 of the whole, the least significant first. Bit j of the
whole is bit j % 8 of byte j // 8. What is left of the last byte is 0.

Values of more than DIGIT_BITS have an even number of bits. They are handled as two *digits* of half
as many bits each, the less significant one first. To pack the digits is to pack the values.

A digit is read from a *word*, a 64-bit integer that begins at a byte and holds the whole digit.
Eight digits of d bits, a *group*, take d bytes. So the words at one place of all groups lie d bytes
apart, and their digits begin at the same bit. Words at neighbouring places lie d // 8 bytes apart,
and their digits begin d % 8 bits later, as long as they fit. Such places are a *run*. NumPy reads
or writes the words of a run, in all groups, with one operation.

Words overlap. Each is written with all of its bits, those of the digits before and after included,
so that it does not matter which one is written last. Of the digits before, only the last one
reaches into a word, because a word begins at most d bits before its digit.
"""

from typing import NamedTuple

GROUP = 8
"""The digits of a group."""
MIN_BITS = 8
"""The fewest bits of a value."""
DIGIT_BITS = 54
"""The most bits of a digit."""
MAX_BITS = 80
"""The most bits of a value."""

_WORD_BITS = 64


def packed_bytes(count: int, bits: int) -> int:
    """Return the length of so many packed values."""
    return -(-count * bits // 8)


def digit_count(bits: int) -> int:
    """Return how many digits a value of so many bits has."""
    return 1 if bits <= DIGIT_BITS else 2


def possible_bits(least: int) -> int:
    """Return the fewest bits, from so many on, that values can have; it may be above MAX_BITS."""
    return least + least % digit_count(least)


class Run(NamedTuple):
    """Neighbouring places of a group, whose words lie equally far apart.

    Attributes:
        places: where they are in the group.
        place_count: how many they are.
        offset: at which byte of the group the first word begins.
        shifts: at which bit of its word each digit begins.
    """

    places: slice
    place_count: int
    offset: int
    shifts: list[int]


def runs(digit_bits: int) -> list[Run]:
    """Return the runs of a group, in order."""
    found, place, growth = list[Run](), 0, digit_bits % 8
    most = min(digit_bits, _WORD_BITS - digit_bits)  # bits before a digit
    while place < GROUP:
        offset, first = divmod(place * digit_bits, 8)
        count = min(GROUP - place, (most - first) // growth + 1 if growth else GROUP)
        shifts = [first + growth * index for index in range(count)]
        found.append(Run(slice(place, place + count), count, offset, shifts))
        place += count
    return found
