"""The composition root: settings and models in, a server out.

gRPC's synchronous server, not its asyncio one: that one (grpcio 1.85) stops for good at the first call whose path is
not UTF-8, and is no faster here, since SEAL's binding holds the GIL through the arithmetic of a call either way.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealserve.errors import SealserveError
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve_service.drain import Drain
from sealserve_service.models.registry import ModelRegistry
from sealserve_service.servicer import ModelServicer, PredictionServicer
from sealserve_service.settings import Settings
from sealserve_service.status import UndecodableRequests

_SERVICES = (
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
)
_LAST_REPLIES_SECONDS = 1.0


class AddressError(SealserveError):
    """The address cannot be listened on; the text says why."""


def build_server(settings: Settings, models: ModelRegistry) -> "Server":
    """Build a server that listens nowhere yet."""
    return Server(settings, models)


class Server:
    """A gRPC server with its health and its orderly end."""

    def __init__(self, settings: Settings, models: ModelRegistry) -> None:
        self._settings = settings
        self._drain = Drain()
        calls = settings.max_concurrent_calls
        # Messages up to twice the published limit reach the servicer, which answers with a typed error; gRPC itself
        # ends the call over larger ones.
        self._server = grpc.server(
            ThreadPoolExecutor(calls, "call"),
            options=[
                ("grpc.max_receive_message_length", 2 * settings.limits.max_message_bytes),
                ("grpc.so_reuseport", int(settings.share_port)),
            ],
            interceptors=[UndecodableRequests()],
            maximum_concurrent_rpcs=calls,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models), self._server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(models, settings.limits, self._drain, ThreadPoolExecutor(calls, "read")), self._server
        )
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    def start(self) -> int:
        """Listen and serve; returns the port.

        Raises:
            AddressError: the address is malformed or in use.
        """
        try:
            port = self._server.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {self._settings.address}: it is in use, or no address of this machine"
            ) from error
        self._server.start()
        for service in ("", *_SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    def stop(self) -> None:
        """Refuse new work with UNAVAILABLE, let work in flight finish within grace_seconds, then end."""
        self._drain.begin()
        self._health.enter_graceful_shutdown()
        self._drain.wait(self._settings.grace_seconds)
        self._server.stop(_LAST_REPLIES_SECONDS).wait()
