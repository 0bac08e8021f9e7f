"""Who calls. Every RPC has a tenant from the start; until identities are configured there is one, "anonymous"."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tenant:
    """On whose behalf a call is made: models, keys and quotas are looked up for a tenant."""

    name: str


ANONYMOUS = Tenant("anonymous")
