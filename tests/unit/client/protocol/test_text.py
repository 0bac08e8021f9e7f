"""Texts of the other side: what is shown of them moves no cursor and forges no line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve.protocol.text import (
    MAX_COLUMN_CHARACTERS,
    MAX_NAME_CHARACTERS,
    counted,
    difference,
    feature_in_words,
    printable,
    printable_list,
    quoted,
    rows_in_words,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("mnist", "mnist"),
        ("Größe 漢字", "Größe 漢字"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b\u2029\x85", "a\\u2028b\\u2029\\x85"),
        ("\ud800", "\\ud800"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isprintable()


@given(text=st.text(st.characters(exclude_categories=())), most=st.integers(3, 40))
def test_any_text_is_printable_and_short(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert printable(shown, most) == shown, "what is printable stays"
    shown.encode()


@pytest.mark.parametrize("character", ["x", "\n", "\U0010ffff"])
def test_a_long_text_is_cut(character: str) -> None:
    shown = printable(character * 100_000)
    assert len(shown) <= MAX_NAME_CHARACTERS
    assert shown.endswith("...")
    exactly = "x" * MAX_NAME_CHARACTERS
    assert printable(exactly) == exactly


def test_a_list_shows_its_first_members() -> None:
    assert printable_list(("a\n", 2, True), 3) == "a\\n, 2, True"
    assert printable_list(("a", "b", "c"), 2) == "a, b, ..."
    assert printable_list((), 2) == ""
    assert printable_list(("Smith, John", "", " a", "b"), 9) == "'Smith, John', '', ' a', b"


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        (("a", "b"), ("a", "b"), ""),
        (("a", "b", "c"), ("c", "b"), "missing: a"),
        (("a", "b"), ("b", "a", "x"), "unexpected: x"),
        (("a",), ("a", "a"), "unexpected: a"),
        (("a", "b\n"), ("a", "\x1b"), "missing: b\\n; unexpected: \\x1b"),
        (("a", "b", "c"), ("a", "c", "b"), "in another order: number 1 is 'c', not 'b'"),
        (tuple(map(str, range(20))), (), "missing: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_a_difference_shows_what_differs_only(expected: tuple[str, ...], found: tuple[str, ...], said: str) -> None:
    assert difference(expected, found) == said


@pytest.mark.parametrize(
    ("count", "plural", "said"),
    [(1, "classes", "1 class"), (2, "classes", "2 classes"), (1, "rows", "1 row"), (1000, "rows", "1,000 rows")],
)
def test_numbers_have_their_nouns(count: int, plural: str, said: str) -> None:
    assert counted(count, plural) == said


@given(
    text=st.text(st.one_of(st.sampled_from("'\"\\\n"), st.characters(exclude_categories=()))), most=st.integers(4, 40)
)
def test_a_quoted_text_ends_where_it_seems_to(text: str, most: int) -> None:
    shown = quoted(text, most)
    assert shown.isprintable()
    assert len(shown) <= most + 2
    quote, inside = shown[0], shown[1:-1]
    assert shown[-1] == quote
    assert quote not in re.sub(r"\\.", "", inside), "a quote inside is escaped"
    if len(repr(text)) <= most + 2:
        assert shown == repr(text)
    else:
        assert inside.endswith("...")


def test_rows_are_named_up_to_a_limit() -> None:
    assert rows_in_words([3], 1) == "row 3"
    assert rows_in_words([3, 4], 2, "lines") == "lines 3, 4"
    assert rows_in_words(range(9), 1234) == "rows 0, 1, 2, 3, 4 and 1,229 more"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (None, "feature 3"),
        (7, "column 7 (feature 3)"),
        ("mean radius", "column 'mean radius' (feature 3)"),
        ("", "column '' (feature 3)"),
        ("x' (feature 0) is right", 'column "x\' (feature 0) is right" (feature 3)'),
        ("\x1b[2J\u202e", "column '\\x1b[2J\\u202e' (feature 3)"),
        ("x" * 10**6, f"column '{'x' * (MAX_COLUMN_CHARACTERS - 3)}...' (feature 3)"),
    ],
)
def test_a_feature_has_one_form(column: str | int | None, words: str) -> None:
    assert feature_in_words(3, column) == words
