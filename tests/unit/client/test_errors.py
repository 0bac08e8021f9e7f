"""The errors of the SDK: the tree in the module's docstring is the tree of the classes."""

import re

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
