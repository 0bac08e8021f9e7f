"""Each digit of a group is whole in its word, and only the digit before reaches into that word."""

import pytest

from sealserve.he.bit_packing import (
    DIGIT_BITS,
    GROUP,
    MAX_BITS,
    MIN_BITS,
    digit_count,
    packed_bytes,
    possible_bits,
    runs,
)

DIGITS = sorted({possible_bits(bits) // digit_count(bits) for bits in range(MIN_BITS, MAX_BITS + 1)})


@pytest.mark.parametrize("size", DIGITS)
def test_runs_have_every_place_and_each_digit_whole_in_its_word(size: int) -> None:
    found = runs(size)
    assert [place for run in found for place in range(GROUP)[run.places]] == list(range(GROUP))
    for run in found:
        assert run.place_count == len(range(GROUP)[run.places]) == len(run.shifts)
        for index, shift in enumerate(run.shifts):
            place = run.places.start + index
            assert 8 * (run.offset + index * (size // 8)) + shift == place * size
            assert 0 <= shift <= min(size, 64 - size)


def test_a_private_row_and_private_columns_take_few_runs() -> None:
    assert [len(runs(bits)) for bits in (31, 36, 39, 42, 50, 51, 52, 53)] == [2, 1, 2, 1, 1, 2, 2, 4]


def test_more_bits_than_a_digit_has_are_even() -> None:
    for least in range(MIN_BITS, MAX_BITS + 1):
        bits = possible_bits(least)
        assert bits - least == (least > DIGIT_BITS and least % 2)
        assert bits // digit_count(bits) <= DIGIT_BITS
        assert bits % digit_count(bits) == 0
        assert possible_bits(bits) == bits
    assert possible_bits(MAX_BITS) == MAX_BITS


def test_packed_values_take_whole_bytes_together() -> None:
    assert [packed_bytes(count, 42) for count in (0, 1, 3, 4, 5, 4096)] == [0, 6, 16, 21, 27, 21_504]
