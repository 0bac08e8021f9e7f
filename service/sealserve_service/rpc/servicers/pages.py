"""Pages of a list: as many items as a request asks for, and the token of the next page."""

import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

MAX_PAGE_SIZE = 100


def page(items: Iterable[T], page_size: int, token_of: Callable[[T], str]) -> tuple[list[T], str]:
    """Return the first items, and the token of the page after them.

    Args:
        items: those that follow the page token of the request.
        page_size: as the request has it; 0 for the largest.
        token_of: returns the token of the page that follows an item.

    Returns:
        At most MAX_PAGE_SIZE items, and "" in place of a token if there are no more.
    """
    size = min(page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
    found = list(itertools.islice(items, size + 1))
    return found[:size], token_of(found[size - 1]) if len(found) > size else ""
