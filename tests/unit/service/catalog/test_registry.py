"""The registry: a model that was looked up stays, a change is visible at once.

What nobody uses any more is freed.
"""

import dataclasses
import weakref

import numpy as np
import pytest

from sealserve.errors import ModelNotFoundError, PlanError
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant
from tests.support.serving import linear, served


def line(name: str, slope: float = 1.0) -> ServedModel:
    return served(name, linear([[slope]]))


def names(registry: ModelRegistry, after: str = "", tenant: Tenant = ANONYMOUS) -> list[str]:
    return [served.model.name for served in registry.after(after, tenant)]


def test_models_come_in_the_order_of_their_names() -> None:
    registry = ModelRegistry([line("c"), line("a")])
    registry.put(line("b"))
    registry.put(line("d"))
    registry.drop("c")
    assert names(registry) == ["a", "b", "d"]
    assert names(registry, after="a") == ["b", "d"]


def test_a_change_is_seen_by_who_looks_after_it() -> None:
    old, new = line("a"), line("a", slope=2.0)
    registry = ModelRegistry([old])
    found, page = registry.get("a", ANONYMOUS), registry.after("", ANONYMOUS)
    registry.put(new)
    assert found is old
    assert list(page) == [old]
    assert registry.get("a", ANONYMOUS) is new
    registry.drop("a")
    with pytest.raises(ModelNotFoundError):
        registry.get("a", ANONYMOUS)
    assert names(registry) == []


def test_no_name_means_the_only_model_of_the_tenant() -> None:
    registry = ModelRegistry([line("a")])
    one, both = Tenant("one", frozenset({"b"})), ANONYMOUS
    assert registry.get("", both).model.name == "a"
    registry.put(line("b"))
    assert registry.get("", one).model.name == "b"
    for name, tenant in (("", both), ("a", one)):
        with pytest.raises(ModelNotFoundError):
            registry.get(name, tenant)
    registry.drop("a")
    assert registry.get("", both).model.name == "b"


def test_an_old_model_is_gone_when_nobody_uses_it() -> None:
    registry = ModelRegistry([line("a")])
    in_use = registry.get("a", ANONYMOUS)
    model, engine = weakref.ref(in_use), weakref.ref(in_use.engines[0])
    registry.put(line("a", slope=np.e))
    assert model() is in_use
    del in_use
    assert (model(), engine()) == (None, None)


@pytest.mark.parametrize(
    ("name", "columns", "text"),
    [
        ("line", ("a", "a"), "two columns have one name"),
        ("line", ("a", "x" * 5000), "the name of a column has more than"),
        ("li\x1bne", ("a", "b"), "cannot be shown"),
    ],
)
def test_a_model_that_clients_would_refuse_is_not_served(name: str, columns: tuple[str, ...], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        served(name, dataclasses.replace(linear([[1.0, 2.0]]), feature_names=columns))
    assert served("line", dataclasses.replace(linear([[1.0, 2.0]]), feature_names=("a", "b"))).model.name == "line"
