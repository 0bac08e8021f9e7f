"""Texts, against scikit-learn's vectorizers."""

import unicodedata
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.utils import murmurhash3_32

from sealserve.steps import limits
from sealserve.steps.arithmetic import Affine, Norm, Normalize
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.murmur_hash import murmur_hash
from sealserve.steps.program import Program
from sealserve.steps.ranges import GroupKind, Ranges
from sealserve.steps.step import Step, ValueKind
from sealserve.steps.text import StripAccents, Text, Tokens
from sealserve.steps.unicode_tables import UNASSIGNED, WORDS
from tests.support.applied_steps import applied, column_of

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "the the THE  the\tquick\n\nbrown_fox a b cd",
    "",
    " ",
    "\u00a0\u2003x",
    "caf\u00e9 CAF\u00c9 cafe\u0301 na\u00efve Stra\u00dfe STRASSE \u0130stanbul \u039f\u0394\u039f\u03a3",
    "\u6771\u4eac \u0442\u0435\u0441\u0442 \u0663\u0664 x\u00b2 \ufb01ne \u1e9e",
    "emoji \U0001f600 joined a\u200db \U0001d51ef",
    "0x1f 3.14 a-b don't",
    "a",
    "ab",
]
TOKENS = {"word": Tokens.WORDS, "char": Tokens.CHARACTERS, "char_wb": Tokens.CHARACTERS_IN_WORDS}
ACCENTS = {None: StripAccents.NONE, "unicode": StripAccents.UNICODE, "ascii": StripAccents.ASCII}


def text_of(vectorizer: Any, **arguments: Any) -> Text:
    """The step of a vectorizer, without its terms."""
    return Text(
        [0],
        TOKENS[vectorizer.analyzer],
        lowercase=vectorizer.lowercase,
        strip_accents=ACCENTS[vectorizer.strip_accents],
        stop_words=tuple(vectorizer.stop_words or ()),
        ngram_min=vectorizer.ngram_range[0],
        ngram_max=vectorizer.ngram_range[1],
        **arguments,
    )


CASES = [
    {},
    {"lowercase": False},
    {"ngram_range": (1, 3)},
    {"ngram_range": (2, 2), "stop_words": ["the", "over"]},
    {"strip_accents": "unicode"},
    {"strip_accents": "ascii"},
    *(
        {"analyzer": analyzer, "ngram_range": sizes}
        for analyzer in ("char", "char_wb")
        for sizes in ((1, 1), (2, 4), (3, 5))
    ),
]


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_counts_are_those_of_the_vectorizer(arguments: dict[str, Any]) -> None:
    vectorizer = CountVectorizer(**arguments).fit(TEXTS)
    step = text_of(vectorizer, vocabulary=tuple(vectorizer.get_feature_names_out()))
    tested = [*TEXTS, "unseen words THE end", "x" * 100]
    np.testing.assert_array_equal(applied(step, column_of(*tested)).values, vectorizer.transform(tested).toarray())


@pytest.mark.parametrize("alternates_sign", [True, False])
@pytest.mark.parametrize("width", [7, 1 << 10])
def test_hashes_are_those_of_the_vectorizer(width: int, alternates_sign: bool) -> None:
    vectorizer = HashingVectorizer(n_features=width, alternate_sign=alternates_sign, ngram_range=(1, 2))
    text = text_of(vectorizer, hash_width=width, alternates_sign=alternates_sign)
    steps = [text, Normalize(range(1, 1 + width), Norm.L2)]
    found = Program([ValueKind.TEXT], steps, range(1 + width, 1 + 2 * width)).features(column_of(*TEXTS))
    np.testing.assert_allclose(found.values, vectorizer.transform(TEXTS).toarray(), rtol=1e-14, atol=1e-15)


def test_hashes_of_all_lengths_are_murmur_hashes() -> None:
    keys = [bytes(range(length)) for length in range(40)] + ["größe".encode(), b"\xff" * 9]
    assert murmur_hash(keys).tolist() == [murmurhash3_32(key, 0) for key in keys]
    assert murmur_hash([]).tolist() == []


@pytest.mark.parametrize("is_sublinear", [False, True])
def test_tf_idf_is_that_of_the_vectorizer_and_has_a_norm(is_sublinear: bool) -> None:
    vectorizer = TfidfVectorizer(sublinear_tf=is_sublinear).fit(TEXTS)
    width = len(vectorizer.vocabulary_)
    steps: list[Step] = [text_of(vectorizer, vocabulary=tuple(vectorizer.get_feature_names_out()))]
    if is_sublinear:
        steps.append(Elementwise(range(1, 1 + width), Function.SUBLINEAR))
    for step in (Affine, Normalize):
        inputs = range(1 + width * (len(steps) - 1), 1 + width * len(steps))
        steps.append(Affine(inputs, multiply=vectorizer.idf_) if step is Affine else Normalize(inputs, Norm.L2))
    program = Program([ValueKind.TEXT], steps, range(1 + width * (len(steps) - 1), 1 + width * len(steps)))
    expected = vectorizer.transform(TEXTS).toarray()
    np.testing.assert_allclose(program.features(column_of(*TEXTS)).values, expected, rtol=1e-13, atol=1e-15)
    unknown = np.array([np.nan])
    ranges = program.ranges(Ranges.of(unknown, unknown))
    assert (ranges.low.tolist(), ranges.high.tolist()) == ([0.0] * width, [1.0] * width)
    assert [group.kind for group in ranges.groups] == [GroupKind.NORM]


def test_a_missing_or_endless_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Text([0], Tokens.WORDS, vocabulary=("ab",))
    assert applied(step, column_of(None, "ab")).is_refused.tolist() == [True, False]
    monkeypatch.setattr("sealserve.steps.text.MAX_CHARACTERS", 10)
    assert applied(step, column_of("x" * 11, "ab" * 5)).is_refused.tolist() == [True, False]
    assert limits.MAX_CHARACTERS == 1 << 20


def test_the_tables_are_those_of_unicode_14() -> None:
    """A newer Python's own tables have more. What Unicode 14.0 assigns keeps its class."""
    unassigned = {c for c in map(chr, range(0x110000)) if UNASSIGNED.fullmatch(c)}
    if unicodedata.unidata_version == "14.0.0":
        assert unassigned == {c for c in map(chr, range(0x110000)) if unicodedata.category(c) == "Cn"}
        words = {c for c in map(chr, range(0x110000)) if WORDS.fullmatch(c)}
        assert words == {c for c in map(chr, range(0x110000)) if c.isalnum() or c == "_"}
    assert not any(WORDS.fullmatch(c) for c in unassigned)
    assert len(unassigned) == 829_834


def test_characters_that_are_not_assigned_stay_and_part_words() -> None:
    new = "\u0c5c"  # assigned since Unicode 17.0, as a letter
    assert UNASSIGNED.fullmatch(new)
    step = Text([0], Tokens.CHARACTERS, vocabulary=(new, "a"), strip_accents=StripAccents.UNICODE)
    assert applied(step, column_of(f"A{new}\u00c1")).values.tolist() == [[1, 2]]
    words = Text([0], Tokens.WORDS, vocabulary=("aa", f"a{new}a"))
    assert applied(words, column_of(f"Aa{new}aA")).values.tolist() == [[2, 0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"vocabulary": ("a",), "hash_width": 4},
        {"vocabulary": ("a", "a")},
        {"vocabulary": ("a",), "alternates_sign": True},
        {"vocabulary": ("a",), "ngram_min": 0},
        {"vocabulary": ("a",), "ngram_min": 2},
        {"vocabulary": ("a",), "ngram_max": 17},
        {"vocabulary": ("a",), "min_word_length": -1},
        {"hash_width": (1 << 21) + 1},
        {"hash_width": -1},
        {"vocabulary": ("a",), "tokens": Tokens.CHARACTERS, "stop_words": ("b",)},
        {"vocabulary": ("a",), "inputs": [0, 1]},
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Text(**{"inputs": [0], "tokens": Tokens.WORDS, **arguments})
