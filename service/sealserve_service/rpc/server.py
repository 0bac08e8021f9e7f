"""A gRPC server: its services, its health, its orderly end.

gRPC's synchronous server, not its asyncio one: that one (grpcio 1.85) stops for good at the first call whose path is
not UTF-8, and is no faster here, since SEAL's binding holds the GIL through the arithmetic of a call either way.
"""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealserve.v1 import keys_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.rpc.gate import Gate
from sealserve_service.rpc.servicers.keys import KeyServicer
from sealserve_service.rpc.servicers.models import ModelServicer
from sealserve_service.rpc.servicers.predictions import PredictionServicer
from sealserve_service.scoring.admission import Admission, memory_limit_bytes, work_bytes
from sealserve_service.scoring.calls_in_flight import Drain
from sealserve_service.settings import Settings
from sealserve_service.settings.values import AddressError
from sealserve_service.telemetry.calls import Calls
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.authenticator import Authenticator

_PREDICT = "/sealserve.v1.PredictionService/Predict"
_LAST_REPLIES_SECONDS = 1.0
_REFUSED_CALLS = 32
_SWEEP_SECONDS = 3600.0
# Of a call's headers. gRPC by itself refuses some calls from half of this on, at random.
_MAX_METADATA_BYTES = 16 << 10
# A peer that vanished without a word is noticed by pings, one that has nothing to ask is disconnected.
_PING_SECONDS, _PONG_SECONDS, _IDLE_CONNECTION_SECONDS = 60, 20, 600


class Server:
    """Serves models and, where there are any, registered keys."""

    def __init__(
        self,
        settings: Settings,
        models: ModelRegistry,
        keys: RegisteredKeys | None,
        authenticator: Authenticator,
        telemetry: Telemetry,
    ) -> None:
        self.telemetry = telemetry
        self._settings = settings
        self._keys = keys
        room = work_bytes(memory_limit_bytes(), settings.processes)
        # Each call may hold a message; and the calls beyond it are those that are just being refused.
        calls = min(settings.max_concurrent_calls, room // settings.limits.max_message_bytes)
        threads = calls + _REFUSED_CALLS
        self._drain = Drain(calls)
        admission = Admission(room, settings.quota, telemetry=telemetry)
        readers = ThreadPoolExecutor(threads, "read")
        prediction = PredictionServicer(models, authenticator, settings.limits, self._drain, admission, readers)
        gate = Gate(authenticator, settings.limits.item_timeout_seconds, readers, {_PREDICT: prediction.check_room})
        # Messages up to twice the published limit reach the servicer, which answers with a typed error; gRPC itself
        # ends the call over larger ones.
        self._server = grpc.server(
            ThreadPoolExecutor(threads, "call"),
            options=[
                ("grpc.max_receive_message_length", 2 * settings.limits.max_message_bytes),
                ("grpc.so_reuseport", int(settings.processes > 1)),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.server_handshake_timeout_ms", round(1000 * settings.handshake_timeout_seconds)),
                ("grpc.keepalive_time_ms", 1000 * _PING_SECONDS),
                ("grpc.keepalive_timeout_ms", 1000 * _PONG_SECONDS),
                ("grpc.max_connection_idle_ms", 1000 * _IDLE_CONNECTION_SECONDS),
            ],
            interceptors=[Calls(telemetry), gate],
            maximum_concurrent_rpcs=threads,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models, authenticator), self._server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, self._server)
        self._services = ["sealserve.v1.ModelService", "sealserve.v1.PredictionService"]
        if keys is not None:
            servicer = KeyServicer(keys, authenticator, settings.limits.item_timeout_seconds, self._drain, readers)
            keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, self._server)
            self._services.append("sealserve.v1.KeyService")
        reflected = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)

    def start(self) -> int:
        """Listen and serve; returns the port.

        Raises:
            AddressError: the address is malformed or in use.
            UnusableFileError: the certificate or its key cannot be used.
        """
        try:
            port = self._listen()
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

    def _listen(self) -> int:
        settings = self._settings
        if settings.tls_certificate is None or settings.tls_private_key is None:
            return self._server.add_insecure_port(settings.address)
        from sealserve_service.rpc.certificates import (
            server_credentials,  # who has no certificate need not load its reader
        )

        credentials = server_credentials(settings.tls_certificate, settings.tls_private_key, settings.tls_client_ca)
        return self._server.add_secure_port(settings.address, credentials)

    def _sweep(self, keys: RegisteredKeys) -> None:
        """Delete expired keys from time to time."""
        while not wait([self._drain.begun], _SWEEP_SECONDS).done:
            keys.sweep()
