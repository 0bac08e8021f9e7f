"""The models that a tenant may use: the registry has no others."""

import numpy as np
import pytest

from sealserve.errors import ModelNotFoundError
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol import wire
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.tenants.tenant import Tenant
from tests.support.serving import linear, registered_keys, served


@pytest.fixture(scope="module")
def registry() -> ModelRegistry:
    return ModelRegistry(served(name, linear([[1.0, 2.0]])) for name in ("iris", "mnist", "wine"))


def test_a_model_that_a_tenant_may_not_use_is_not_there(registry: ModelRegistry) -> None:
    tenant = Tenant("clinic", frozenset({"iris", "wine", "of tomorrow"}))
    assert [one.model.name for one in registry.after("", tenant)] == ["iris", "wine"]
    assert [one.model.name for one in registry.after("iris", tenant)] == ["wine"]
    assert registry.get("wine", tenant).model.name == "wine"
    for name in ("mnist", "of tomorrow", "nix", ""):
        with pytest.raises(ModelNotFoundError) as caught:
            registry.get(name, tenant)
        assert vars(caught.value) == {"model": name}


def test_no_name_means_the_tenants_only_model(registry: ModelRegistry) -> None:
    assert registry.get("", Tenant("one", frozenset({"mnist", "nix"}))).model.name == "mnist"
    for tenant in (Tenant("none", frozenset()), Tenant("all")):
        with pytest.raises(ModelNotFoundError, match="name a model"):
            registry.get("", tenant)


def test_private_columns_can_be_withdrawn_from_a_tenant() -> None:
    model = linear(np.random.default_rng(15).normal(size=(3, 8)))
    private, opened = served("private", model, keys=registered_keys(), hiding_bits=40), served("open", model)
    registry = ModelRegistry([private, opened])
    trusted, stranger = Tenant("trusted"), Tenant("stranger", may_use_private_columns=False)
    assert registry.get("private", trusted) is private
    assert [offer.layout.name for offer in private.model.offers] == ["row", "column"]

    found = registry.get("private", stranger)
    assert found.model.offers == private.model.offers[:1]
    assert found.engines == private.engines[:1]
    assert found.model.config_id == wire.config_digest(found.model) != private.model.config_id
    column = private.model.offers[1]
    name = column.parameters.parameter_set.name
    assert private.engine(column.layout, name) is private.engines[1]
    assert found.engine(column.layout, name) is None
    assert [one.model.offers for one in registry.after("o", stranger)] == [opened.model.offers, found.model.offers]
    assert registry.get("private", stranger) is found, "it is made once"

    # Open columns give away no more than open rows: nothing is withdrawn.
    assert registry.get("open", stranger) is opened
    assert LAYOUTS["column"] in [offer.layout for offer in opened.model.offers]
