"""The models that a tenant may use: the registry has no others."""

import pytest

from sealserve.errors import ModelNotFoundError
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.tenants.tenant import Tenant
from tests.support.serving import linear, served


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
