"""Who calls, and what they may do. Every RPC has a tenant from the start.

Without identities there is one tenant, "anonymous", that may do everything. With a file of identities, a call has a
bearer token (metadata `authorization: Bearer TOKEN`) or comes over a connection with a known client certificate; a
token that is sent decides alone, so that a wrong one is refused even under a good certificate.
"""

from dataclasses import dataclass

from sealserve_service.tenants.quota import Quota


@dataclass(frozen=True)
class Tenant:
    """On whose behalf a call is made: models, keys and quotas are looked up for a tenant.

    Attributes:
        models: the names of those it may use; None for all.
        may_list_models, may_register_keys: where a refusal tells nothing about others.
        quota: how much it may have; None for what the service gives everybody.
    """

    name: str
    models: frozenset[str] | None = None
    may_list_models: bool = True
    may_register_keys: bool = True
    quota: Quota | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may use the model of that name; what it may not use, it must not find either."""
        return self.models is None or model in self.models


ANONYMOUS = Tenant("anonymous")
