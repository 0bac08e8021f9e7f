"""The tenant on whose behalf a call is made, and what the tenant may do. Every RPC has a tenant.

Without a file of identities there is one tenant, "anonymous", which may do everything.
`authenticator` says how a call shows its tenant.
"""

from contextvars import ContextVar
from dataclasses import dataclass

from sealserve_service.tenants.quota import Quota


@dataclass(frozen=True)
class Tenant:
    """A user of the service: models, keys and quotas are looked up for a tenant.

    Attributes:
        models: the names of the models that the tenant may use; None for all.
        may_list_models, may_register_keys: permissions whose refusal tells nothing about other
            tenants.
        may_use_private_columns: whether the tenant is offered private weights in columns, which are
            promised against clients that keep to the protocol only.
        quota: how much the tenant may use; None for the quota that the service gives to every
            tenant.
    """

    name: str
    models: frozenset[str] | None = None
    may_list_models: bool = True
    may_register_keys: bool = True
    may_use_private_columns: bool = True
    quota: Quota | None = None

    def may_use(self, model: str) -> bool:
        """Whether the tenant may use the model of that name; if not, it must not find it either."""
        return self.models is None or model in self.models


ANONYMOUS = Tenant("anonymous")

current_tenant: ContextVar[Tenant] = ContextVar("current_tenant")
"""The tenant of the call that this code serves: gRPC runs each call in a context of its own."""
