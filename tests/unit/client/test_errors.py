"""The errors of the SDK: the tree in the module's docstring is the tree of the classes."""

import copy
import dataclasses
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from enum import Enum
from multiprocessing import get_context
from typing import Any, get_type_hints

import pytest

from sealserve import errors
from sealserve.errors import SealserveError
from sealserve_service.models import errors as model_errors
from sealserve_service.models.errors import ModelError


def subclasses(kind: type[Exception], module: str) -> list[type[Exception]]:
    """Return a class and all its subclasses of a module, each before its own subclasses."""
    found = [kind]
    for sub in kind.__subclasses__():
        if sub.__module__ == module:
            found += subclasses(sub, module)
    return found


def test_a_model_that_has_to_be_named_is_named() -> None:
    error = errors.ModelNotFoundError("")
    assert str(error) == "name a model: the service has several models, or none"
    error.served = ("a", "b")
    assert str(error) == "name a model: a, b"
    error.served = tuple(map(str, range(11)))
    assert str(error).endswith(" 8, 9, ...")
    assert errors.ModelNotFoundError("x").served == ()


@pytest.mark.parametrize(("module", "root"), [(errors, SealserveError), (model_errors, ModelError)])
def test_the_tree_in_the_docstring_has_every_error(module: object, root: type[Exception]) -> None:
    shown = re.findall(r"^[│├└─ ]*(\w+Error)\b", str(module.__doc__), re.MULTILINE)
    assert sorted(shown) == sorted(kind.__name__ for kind in subclasses(root, root.__module__))
    assert shown[0] == root.__name__


def instances() -> Iterator[Any]:
    """Every error of the SDK, made as the SDK and a service make them."""
    kind: Any
    for kind in subclasses(SealserveError, errors.__name__):
        if hasattr(kind, "__dataclass_fields__"):
            hints = get_type_hints(kind)
            values = {field.name: least(hints[field.name]) for field in dataclasses.fields(kind)}
            yield kind(**values)
            yield kind(*values.values())
        elif kind in (errors.ClientClosedError, errors.ReplyError, errors.UnauthenticatedError):
            yield kind()
        else:
            yield kind("what differs")


def least(hint: Any) -> Any:
    return next(iter(hint)) if issubclass(hint, Enum) else hint("7")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(protocol: int) -> None:
    count = 0
    for error in instances():
        error.add_note("in batch 3")
        for back in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):  # noqa: S301  # our own
            assert type(back) is type(error)
            assert str(back) == str(error)
            assert (back.args, vars(back)) == (error.args, vars(error))
        count += 1
    assert count > 40


def raise_again(error: SealserveError) -> None:
    raise error


def test_an_error_of_another_process_is_caught_by_its_type() -> None:
    error = errors.QuotaExceededError(quota="rows_per_minute", retry_delay_seconds=1.5)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = pool.submit(raise_again, error).exception()
    assert isinstance(found, errors.QuotaExceededError)
    assert (found.quota, found.retry_delay_seconds) == ("rows_per_minute", 1.5)
