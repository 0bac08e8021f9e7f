"""Names of steps in error messages, as in scikit-learn's `set_params`: 'prepare__scale'."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from sealserve_service.models.errors import UnsupportedModelError

Rule = TypeVar("Rule")


def rule_for(rules: Mapping[type, Rule], estimator: object, name: str, supported: str) -> Rule:
    """Return the rule for an estimator's exact type: a subclass may compute something else.

    Raises:
        UnsupportedModelError: there is none. The text has `supported`, what there are rules for.
    """
    kind = type(estimator)
    if kind in rules:
        return rules[kind]
    base = next((base for base in kind.__mro__ if base in rules), None)
    if base:
        raise UnsupportedModelError(
            f"{name} is a subclass of {base.__name__} and may compute something else, so it is not served. If it does "
            "not, save its weights as .npz: coef, intercept and, for a classifier, classes."
        )
    raise UnsupportedModelError(f"{name} is not supported. {supported}")


@contextmanager
def errors_naming(name: str) -> Iterator[None]:
    """Name the step in errors about its numbers, its attributes, or that it is not fitted."""
    try:
        yield
    # scikit-learn's NotFittedError is a ValueError, and so is NumPy's LinAlgError.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"{name} cannot be served: {error}") from error


def name_of(estimator: object, path: str) -> str:
    """Return the name of an estimator at a path in the whole model; "" is the model itself."""
    kind = type(estimator).__name__
    return f"step {path!r} ({kind})" if path else kind


def joined(path: str, name: str) -> str:
    """Return the path of a part."""
    return f"{path}__{name}" if path else name


def listed(rules: Mapping[type, object]) -> str:
    """Return the names of the kinds that there are rules for."""
    return ", ".join(kind.__name__ for kind in rules)
