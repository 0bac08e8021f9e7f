"""Steps of text: vectorizers, and the weights of their terms."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)

from sealserve.protocol.text import printable
from sealserve.steps.arithmetic import Affine as PublishedAffine
from sealserve.steps.arithmetic import Norm, Normalize
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.text import StripAccents, Text, Tokens
from sealserve_service.models.affine import Affine
from sealserve_service.models.arrays import fitted_width, vector
from sealserve_service.models.pipeline_steps import Node, OpenStep, Step

_WORD_LENGTHS = {r"(?u)\b\w\w+\b": 2, r"(?u)\b\w+\b": 1}
"""The patterns of words that clients know -> the least length of a word."""
_TOKENS = {"word": Tokens.WORDS, "char": Tokens.CHARACTERS, "char_wb": Tokens.CHARACTERS_IN_WORDS}
_ACCENTS = {None: StripAccents.NONE, "unicode": StripAccents.UNICODE, "ascii": StripAccents.ASCII}


def counts(vectorizer: CountVectorizer, name: str) -> Iterator[Node]:
    """Yield the step of a CountVectorizer."""
    terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    if sorted(map(int, vectorizer.vocabulary_.values())) != list(range(len(terms))):
        raise ValueError("its vocabulary does not number its terms from 0")
    tells = f"a vocabulary of {len(terms)} terms, of the training texts"
    yield _texts(vectorizer, name, tells, len(terms), vocabulary=terms)


def hashes(vectorizer: HashingVectorizer, name: str) -> Iterator[Node]:
    """Yield the steps of a HashingVectorizer."""
    width = int(vectorizer.n_features)
    # Terms of one hash may cancel. To scikit-learn they are there, if counts are binary.
    options = {"hash_width": width, "alternates_sign": bool(vectorizer.alternate_sign) and not vectorizer.binary}
    yield _texts(vectorizer, name, "how texts are cut into terms, but no term", width, **options)
    if vectorizer.norm is not None:
        yield _normalize(vectorizer.norm, width, name)


def weighted_counts(vectorizer: TfidfVectorizer, name: str) -> Iterator[Node]:
    """Yield the steps of a TfidfVectorizer."""
    yield from counts(vectorizer, name)
    yield from term_weights(vectorizer._tfidf, name)


def term_weights(transformer: TfidfTransformer, name: str) -> Iterator[Node]:
    """Yield the steps of a TfidfTransformer. Without a norm, the weights of terms stay private."""
    width = fitted_width(transformer)
    if transformer.sublinear_tf:
        tells = "that counts are logarithms"
        yield OpenStep(name, width, lambda add, inputs: add(Elementwise(inputs, Function.SUBLINEAR)), tells)
    if transformer.use_idf:
        weights = vector(transformer.idf_)
        if transformer.norm is None:
            yield Step(name, Affine(weights, np.zeros(width)))
        else:
            tells = f"in how many training texts each of {width} terms occurs"
            yield OpenStep(name, width, lambda add, inputs: add(PublishedAffine(inputs, multiply=weights)), tells)
    if transformer.norm is not None:
        yield _normalize(transformer.norm, width, name)


def _normalize(norm: str, width: int, name: str) -> OpenStep:
    return OpenStep(name, width, lambda add, inputs: add(Normalize(inputs, Norm(norm))), "that rows are normalized")


def _texts(vectorizer: Any, name: str, tells: str, width: int, **terms: Any) -> OpenStep:
    """Return the step that counts terms."""
    for option in ("tokenizer", "preprocessor"):
        if getattr(vectorizer, option) is not None:
            raise ValueError(f"its {option} is code of its own: fit it without, or compute it in the application")
    if vectorizer.analyzer not in _TOKENS:
        raise ValueError("its analyzer is code of its own: fit it with 'word', 'char' or 'char_wb'")
    tokens = _TOKENS[vectorizer.analyzer]
    pattern = vectorizer.token_pattern
    if tokens is Tokens.WORDS and pattern not in _WORD_LENGTHS:
        raise ValueError(
            f"its token_pattern {printable(str(pattern))!r} is not one that clients know: use the default, or "
            rf"'(?u)\b\w+\b' for words of one letter too"
        )
    if vectorizer.strip_accents not in _ACCENTS:
        raise ValueError("its strip_accents is code of its own: fit it with None, 'unicode' or 'ascii'")
    low, high = vectorizer.ngram_range
    stop_words = sorted(vectorizer.get_stop_words() or ()) if tokens is Tokens.WORDS else ()

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        outputs: NDArray[np.intp] = add(
            Text(
                inputs,
                tokens,
                lowercase=bool(vectorizer.lowercase),
                strip_accents=_ACCENTS[vectorizer.strip_accents],
                min_word_length=_WORD_LENGTHS.get(pattern, 1),
                stop_words=tuple(stop_words),
                ngram_min=int(low),
                ngram_max=int(high),
                **terms,
            )
        )
        if vectorizer.binary:
            outputs = add(Elementwise(outputs, Function.GREATER, np.zeros(width)))
        return outputs

    return OpenStep(name, width, emit, tells)
