"""Text: counts of the words, characters or n-grams of a text."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.categories import distinct
from sealserve.steps.limits import MAX_CHARACTERS, MAX_NGRAM, MAX_VALUES, OPERATIONS_A_SIZE
from sealserve.steps.murmur_hash import murmur_hash
from sealserve.steps.ranges import Ranges
from sealserve.steps.step import Step, ValueKind
from sealserve.steps.unicode_tables import UNASSIGNED, WORDS

_SPACES = re.compile(r"\s\s+")


class Tokens(Enum):
    """What a token is. See Text.Tokens in steps.proto."""

    WORDS = "words"
    CHARACTERS = "characters"
    CHARACTERS_IN_WORDS = "characters_in_words"


class StripAccents(Enum):
    """How to remove accents. See Text.StripAccents in steps.proto."""

    NONE = "none"
    UNICODE = "unicode"
    ASCII = "ascii"


@dataclass(frozen=True, eq=False)
class Text(Step):
    """Counts the n-grams of a text that are terms. See Text in steps.proto.

    Attributes:
        tokens: what a token is.
        vocabulary: the terms, one for each output; empty if hash_width is not 0.
        hash_width: the number of outputs over which n-grams are spread by their hash.
        alternates_sign: whether n-grams of a negative hash count as -1.
        lowercase: whether to convert to lower case.
        strip_accents: how to remove accents.
        min_word_length: the least number of characters of a word.
        stop_words: words that are left out before n-grams are formed.
        ngram_min, ngram_max: the least and the greatest number of tokens of an n-gram.
    """

    tokens: Tokens
    vocabulary: Sequence[str] = ()
    hash_width: int = 0
    alternates_sign: bool = False
    lowercase: bool = True
    strip_accents: StripAccents = StripAccents.NONE
    min_word_length: int = 2
    stop_words: Sequence[str] = ()
    ngram_min: int = 1
    ngram_max: int = 1
    _places: dict[str, int] = field(init=False, repr=False)
    _stopped: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("vocabulary", distinct("a term", self.vocabulary))
        self._set("stop_words", distinct("a stop word", self.stop_words))
        self._set("_places", {term: place for place, term in enumerate(self.vocabulary)})
        self._set("_stopped", frozenset(self.stop_words))
        if self.input_count != 1:
            raise ValueError("one text is needed as input")
        if bool(self.vocabulary) == bool(self.hash_width) or not 0 <= self.hash_width <= MAX_VALUES:
            raise ValueError("either a vocabulary or the number of hashes is needed")
        if self.alternates_sign and not self.hash_width:
            raise ValueError("only hashes alternate their sign")
        if not 1 <= self.ngram_min <= self.ngram_max <= MAX_NGRAM:
            raise ValueError(f"n-grams have 1 to {MAX_NGRAM} tokens")
        if not 0 <= self.min_word_length <= MAX_CHARACTERS or (self.stop_words and self.tokens is not Tokens.WORDS):
            raise ValueError("the length of words is out of range, or stop words are not for characters")

    @property
    def input_kind(self) -> ValueKind:
        return ValueKind.TEXT

    @property
    def width(self) -> int:
        return self.hash_width or len(self.vocabulary)

    @property
    def operations(self) -> int:
        return super().operations + OPERATIONS_A_SIZE * len(self._sizes)

    @property
    def text_count(self) -> int:
        return len(self.vocabulary) + len(self.stop_words)

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found = np.zeros((len(values), self.width))
        for row, text in enumerate(values[:, 0].tolist()):
            if text is None or len(text) > MAX_CHARACTERS:
                is_refused[row] = True
            elif self.hash_width:
                self._count_hashes(found[row], self.ngrams(text))
            else:
                place_of = self._places.get
                places = [place for ngram in self.ngrams(text) if (place := place_of(ngram)) is not None]
                found[row] = np.bincount(places, minlength=self.width) if places else 0.0
        return found

    def _count_hashes(self, counts: NDArray[np.float64], ngrams: Iterable[str]) -> None:
        hashes = murmur_hash([ngram.encode(errors="surrogatepass") for ngram in ngrams])
        signs = np.where((hashes < 0) & self.alternates_sign, -1.0, 1.0)
        np.add.at(counts, np.abs(hashes) % self.hash_width, signs)

    def ranges(self, inputs: Ranges) -> Ranges:
        most = float(MAX_CHARACTERS * (self.ngram_max - self.ngram_min + 1))
        low = np.full(self.width, -most if self.alternates_sign else 0.0)
        return Ranges.of(low, np.full(self.width, most), is_integral=True)

    def ngrams(self, text: str) -> Iterator[str]:
        """Yield the n-grams of a text, in no particular order."""
        text = self._prepared(text)
        if self.tokens is Tokens.WORDS:
            found = [word for word in WORDS.findall(text) if len(word) >= self.min_word_length]
            words = [word for word in found if word not in self._stopped] if self._stopped else found
            for size in self._sizes:
                if size == 1:
                    yield from words
                else:
                    for first in range(len(words) - size + 1):
                        yield " ".join(words[first : first + size])
            return
        text = _SPACES.sub(" ", text)
        if self.tokens is Tokens.CHARACTERS:
            for size in self._sizes:
                for first in range(len(text) - size + 1):
                    yield text[first : first + size]
            return
        for piece in text.split():
            padded = f" {piece} "
            for size in self._sizes:
                for first in range(max(1, len(padded) - size + 1)):
                    yield padded[first : first + size]
                if len(padded) <= size:
                    break

    @property
    def _sizes(self) -> range:
        return range(self.ngram_min, self.ngram_max + 1)

    def _prepared(self, text: str) -> str:
        if text.isascii():
            return text.lower() if self.lowercase else text
        # What Unicode 14.0 does not assign stays as it is, whatever Python's own version knows.
        parts = UNASSIGNED.split(text)
        parts[::2] = map(self._prepared_part, parts[::2])
        joined = "".join(parts)
        return joined.encode("ascii", "ignore").decode() if self.strip_accents is StripAccents.ASCII else joined

    def _prepared_part(self, text: str) -> str:
        if self.lowercase:
            text = text.lower()
        if self.strip_accents is not StripAccents.NONE:
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return text
