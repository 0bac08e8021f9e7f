"""gRPC's health service, which strangers may ask for less than callers."""

from typing import Any

from grpc import ServicerContext
from grpc_health.v1 import health

from sealserve.errors import UnauthenticatedError
from sealserve_service.tenants.caller import STRANGER, current_caller


class HealthServicer(health.HealthServicer):
    """The states of the services. A stranger may ask for that of the whole server only."""

    def Check(self, request: Any, context: ServicerContext) -> Any:
        """Return the state of a service, or of the whole server for an empty name."""
        if request.service and current_caller.get().tenant is STRANGER:
            raise UnauthenticatedError
        return super().Check(request, context)
