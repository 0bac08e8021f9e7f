"""A gRPC server: its services, its health, its orderly end.

gRPC's synchronous server, not its asyncio one: that one (grpcio 1.85) stops for good at the first call whose path is
not UTF-8, and is no faster here, since SEAL's binding holds the GIL through the arithmetic of a call either way.
"""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealserve.errors import SealserveError
from sealserve.v1 import keys_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc
from sealserve_service.drain import Drain
from sealserve_service.models.registry import ModelRegistry
from sealserve_service.registered_keys import RegisteredKeys
from sealserve_service.servicer import KeyServicer, ModelServicer, PredictionServicer
from sealserve_service.settings import Settings
from sealserve_service.status import UndecodableRequests

_LAST_REPLIES_SECONDS = 1.0
_SWEEP_SECONDS = 3600.0


class AddressError(SealserveError):
    """The address cannot be listened on; the text says why."""


class Server:
    """Serves models and, where there are any, registered keys."""

    def __init__(self, settings: Settings, models: ModelRegistry, keys: RegisteredKeys | None) -> None:
        self._settings = settings
        self._keys = keys
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
        readers = ThreadPoolExecutor(calls, "read")
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models), self._server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(models, settings.limits, self._drain, readers), self._server
        )
        self._services = ["sealserve.v1.ModelService", "sealserve.v1.PredictionService"]
        if keys is not None:
            servicer = KeyServicer(keys, settings.limits.item_timeout_seconds, self._drain, readers)
            keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, self._server)
            self._services.append("sealserve.v1.KeyService")
        reflected = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)

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
        if self._keys is not None:
            threading.Thread(target=self._sweep, args=(self._keys,), name="sweep", daemon=True).start()
        for service in ("", *self._services):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    def stop(self) -> None:
        """Refuse new work with UNAVAILABLE, let work in flight finish within grace_seconds, then end."""
        self._drain.begin()
        self._health.enter_graceful_shutdown()
        self._drain.wait(self._settings.grace_seconds)
        self._server.stop(_LAST_REPLIES_SECONDS).wait()

    def _sweep(self, keys: RegisteredKeys) -> None:
        """Delete expired keys from time to time."""
        while not wait([self._drain.begun], _SWEEP_SECONDS).done:
            keys.sweep()
