"""Forks: what must be new in a child process, because the parent's threads do not live in it.

A lock that another thread held during the fork is never released in the child, and a connection has
no thread there that reads it.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any

_methods: list["weakref.WeakMethod[Callable[[], Any]]"] = []


def call_in_child(method: Callable[[], Any]) -> None:
    """Call a bound method in every child that is forked while its object lives.

    The method runs before the fork returns in the child. It must take no lock.
    """
    _methods.append(weakref.WeakMethod(method, _methods.remove))


def _call_all() -> None:
    for reference in list(_methods):
        if (method := reference()) is not None:
            method()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_call_all)
