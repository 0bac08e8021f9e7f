"""Text: the counts of terms in a text, as the comments of Text have them."""

import re
import unicodedata
from collections.abc import Iterator

from sealserve.v1 import steps_pb2

MOST_CHARACTERS = 1_048_576
"""The most characters of a text that is not refused."""


def counts(step: steps_pb2.Text, text: str) -> list[float]:
    """The count of each term, or of each hash, in a text."""
    if not step.hash_width:
        places = {term: place for place, term in enumerate(step.vocabulary)}
        found = [0.0] * len(places)
        for ngram in ngrams(step, text):
            if ngram in places:
                found[places[ngram]] += 1
        return found
    found = [0.0] * step.hash_width
    for ngram in ngrams(step, text):
        h = murmur_hash(ngram.encode())
        found[abs(h) % step.hash_width] += -1 if h < 0 and step.alternates_sign else 1
    return found


def ngrams(step: steps_pb2.Text, text: str) -> Iterator[str]:
    """Yield the n-grams of a text."""
    sizes = range(step.ngram_min, step.ngram_max + 1)
    text = _prepared(step, text)
    if step.tokens == steps_pb2.Text.TOKENS_WORDS:
        words = [word for word in re.findall(r"\w+", text) if len(word) >= step.min_word_length]
        words = [word for word in words if word not in step.stop_words]
        for size in sizes:
            yield from (" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
        return
    text = re.sub(r"\s\s+", " ", text)
    if step.tokens == steps_pb2.Text.TOKENS_CHARACTERS:
        for size in sizes:
            yield from (text[at : at + size] for at in range(len(text) - size + 1))
        return
    for piece in (f" {piece} " for piece in text.split()):
        for size in sizes:
            if size >= len(piece):
                yield piece
                break
            yield from (piece[at : at + size] for at in range(len(piece) - size + 1))


def _prepared(step: steps_pb2.Text, text: str) -> str:
    if step.lowercase:
        text = text.lower()
    if step.strip_accents == steps_pb2.Text.STRIP_ACCENTS_UNICODE:
        return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if step.strip_accents == steps_pb2.Text.STRIP_ACCENTS_ASCII:
        return "".join(c for c in unicodedata.normalize("NFKD", text) if c.isascii())
    return text


def murmur_hash(data: bytes) -> int:
    """MurmurHash3 of 32 bits with seed 0, signed. Source: Austin Appleby, MurmurHash3.cpp."""
    mask = (1 << 32) - 1

    def rotated(x: int, bits: int) -> int:
        return (x << bits | x >> 32 - bits) & mask

    def mixed(k: int) -> int:
        return rotated(k * 0xCC9E2D51 & mask, 15) * 0x1B873593 & mask

    h, whole = 0, len(data) // 4 * 4
    for at in range(0, whole, 4):
        h = (rotated(h ^ mixed(int.from_bytes(data[at : at + 4], "little")), 13) * 5 + 0xE6546B64) & mask
    h ^= mixed(int.from_bytes(data[whole:], "little")) ^ len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    h ^= h >> 16
    return h - (1 << 32) if h >> 31 else h
