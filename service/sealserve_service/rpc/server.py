"""The gRPC server: its services, its health, and its orderly shutdown.

It is gRPC's synchronous server. The asyncio one (grpcio 1.85) stops for good at the first call
whose path is not UTF-8. It would not be faster here either: SEAL's binding holds the GIL through
the arithmetic of a call.
"""

import contextlib
import logging
import math
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sealserve._rpc.unix_socket import private_socket
from sealserve.errors import InputError
from sealserve.protocol.address import path_of
from sealserve.v1 import keys_pb2_grpc, model_pb2_grpc, prediction_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.container import core_count, memory_limit_bytes, thread_limit
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.rpc.interceptor import CallInterceptor
from sealserve_service.rpc.servicers.health import HealthServicer
from sealserve_service.rpc.servicers.keys import MAX_UPLOADS, KeyServicer
from sealserve_service.rpc.servicers.models import ModelServicer
from sealserve_service.rpc.servicers.predictions import PredictionServicer, unary_engines
from sealserve_service.rpc.threads import CallThreads, pool_threads
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.caller_slots import CONCURRENT_UPLOADS, OPEN_STREAMS, WAITING_CALLS, CallerSlots
from sealserve_service.scoring.calls_in_flight import CallsInFlight
from sealserve_service.scoring.memory import work_bytes
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import AddressError
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.authenticator import Authenticator

if TYPE_CHECKING:  # it loads OpenTelemetry
    from sealserve_service.telemetry.spans import Spans

_PREDICT = "/sealserve.v1.PredictionService/Predict"
_PUT_KEY, _REGISTER_KEY = "/sealserve.v1.KeyService/PutKey", "/sealserve.v1.KeyService/RegisterKey"
_LAST_REPLIES_SECONDS = 1.0
_END_SECONDS = 1.0
_OTHER_CALLS = 96
_MAX_BURST = 512
_SWEEP_SECONDS = 3600.0
# Of a call's headers. From half of this on, gRPC itself refuses some calls at random.
_MAX_METADATA_BYTES = 16 << 10
# Pings detect a peer that has vanished. A peer whose connection carries no call is disconnected.
_PING_SECONDS, _PONG_SECONDS, _IDLE_CONNECTION_SECONDS = 60, 20, 600
# A client may ping so often, with or without calls. Clients of several languages do so every 10 s,
# and Envoy every 1 s; by default gRPC disconnects them after the third ping.
_MIN_PING_SECONDS = 0.5

_logger = logging.getLogger(__name__)


class Server:
    """Serves models and, if there are any, registered keys.

    Args:
        settings: of the service.
        models: the models to serve.
        keys: the registered keys; without them there is no KeyService.
        authenticator: finds the tenant of each call.
        telemetry: the metrics.
        spans: makes the spans of calls; None if traces are off.
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelRegistry,
        keys: RegisteredKeys | None,
        authenticator: Authenticator,
        telemetry: Telemetry,
        spans: "Spans | None" = None,
    ) -> None:
        self.telemetry = telemetry
        self._settings = settings
        self._keys = keys
        self._is_listening = self._is_retired = False
        max_held_bytes = work_bytes(memory_limit_bytes(), settings.process_count)
        # Each call may hold a message. The threads beyond the calls are for probes and watches of
        # health, and for calls that are being refused, which takes a millisecond. A burst of those
        # waits for a thread: gRPC itself would refuse the calls of others too.
        wanted = min(settings.max_concurrent_calls, max_held_bytes // settings.limits.max_message_bytes)
        threads = pool_threads(thread_limit(), settings.process_count, wanted + _OTHER_CALLS)
        max_calls = max(1, threads - _OTHER_CALLS)
        if max_calls < wanted:
            _logger.warning("the container's limit of threads (pids) allows %d calls at once in a process", max_calls)
        self._pool_threads = max_calls + _OTHER_CALLS
        quota = settings.quota
        waiting_calls = CallerSlots(WAITING_CALLS, max_calls, quota)
        self._calls_in_flight = CallsInFlight(max_calls, waiting_calls)
        self._admission = admission = Admission(
            max_held_bytes,
            quota,
            max_wait_seconds=settings.max_wait,
            core_count=max(1, core_count() // settings.process_count),
            telemetry=telemetry,
        )
        readers, answerers = (CallThreads(self._pool_threads, name) for name in ("read", "call"))
        self._pools = readers, answerers
        self._grpc_threads = set[threading.Thread]()
        prediction = PredictionServicer(
            models,
            authenticator,
            settings.limits,
            self._calls_in_flight,
            admission,
            readers,
            stream_seconds=settings.max_connection_age or math.inf,
        )
        uploads = CallerSlots(CONCURRENT_UPLOADS, MAX_UPLOADS, quota)
        timeout_seconds = settings.limits.item_timeout_seconds
        check_wait = partial(admission.check_wait, partial(unary_engines, models, settings.limits))
        interceptor = CallInterceptor(
            telemetry,
            authenticator,
            settings.trusted_proxies,
            timeout_seconds,
            readers,
            answerers,
            self._calls_in_flight,
            waiting_calls,
            CallerSlots(OPEN_STREAMS, max_calls, quota),
            {_REGISTER_KEY: uploads},
            admission,
            {_PUT_KEY: (KeyServicer.check_permission,)},
            {_PREDICT: check_wait},
            public_health=settings.public_health,
            spans=spans,
        )
        age_milliseconds = round(1000 * settings.max_connection_age)
        ages = ("grpc.max_connection_age_ms", "grpc.max_connection_age_grace_ms") if age_milliseconds else ()
        # Messages up to twice the published limit reach the servicer, which answers with a typed
        # error. For a larger message gRPC itself ends the call.
        self._server = grpc.server(
            answerers,  # type: ignore[arg-type]  # it only submits
            options=[
                ("grpc.max_receive_message_length", 2 * settings.limits.max_message_bytes),
                ("grpc.so_reuseport", int(settings.process_count > 1)),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.server_handshake_timeout_ms", round(1000 * settings.handshake_timeout_seconds)),
                ("grpc.keepalive_time_ms", 1000 * _PING_SECONDS),
                ("grpc.keepalive_timeout_ms", 1000 * _PONG_SECONDS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * _MIN_PING_SECONDS)),
                ("grpc.max_connection_idle_ms", 1000 * _IDLE_CONNECTION_SECONDS),
                *((option, age_milliseconds) for option in ages),
            ],
            interceptors=[interceptor],
            maximum_concurrent_rpcs=self._pool_threads + _MAX_BURST,
        )
        # By default Watch sends while it holds the lock of all health calls. A client that does not
        # read, or that breaks off at the wrong moment, would stop the whole server.
        self._health = HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models), self._server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, self._server)
        self._services = ["sealserve.v1.ModelService", "sealserve.v1.PredictionService"]
        if keys is not None:
            servicer = KeyServicer(keys, settings.limits, self._calls_in_flight, uploads, admission, readers)
            keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, self._server)
            self._services.append("sealserve.v1.KeyService")
        reflected = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)

    def start(self, heartbeat_socket: Path | None = None) -> int:
        """Listen and serve; return the port, which is without meaning for a Unix socket.

        Args:
            heartbeat_socket: of this machine; where to listen too.

        Raises:
            AddressError: the address is malformed or in use.
            UnusableFileError: the certificate or its key cannot be used.
            NoThreadError: the system refuses the threads that the server needs.
        """
        for pool in self._pools:
            pool.start()
        path = path_of(self._settings.address)
        try:
            with private_socket(path) if path else contextlib.nullcontext():
                port = self._listen()
        except InputError as error:
            raise AddressError(str(error)) from error
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {self._settings.address}: it is in use, or no address of this machine"
            ) from error
        if heartbeat_socket is not None:
            self._server.add_insecure_port(f"unix:{heartbeat_socket}")
        before = set(threading.enumerate())
        self._server.start()
        self._grpc_threads = set(threading.enumerate()) - before
        if self._keys is not None:
            threading.Thread(target=self._sweep, args=(self._keys,), name="sweep", daemon=True).start()
            if (zeros := self._keys.ready_zeros) is not None:
                work = self._admission.idle_seconds, self._calls_in_flight.stopping
                threading.Thread(target=zeros.keep, args=work, name="zeros", daemon=True).start()
        for service in ("", *self._services):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._is_listening = True
        self.telemetry.publish_state(is_ready=True, is_stopping=False)
        return port

    @property
    def is_serving(self) -> bool:
        """Whether gRPC's own thread lives. Without memory for a message, for one, it dies."""
        return all(thread.is_alive() for thread in self._grpc_threads)

    def is_ready(self) -> bool:
        """Tell whether calls are to be sent here: the server listens and is not about to stop."""
        return self._is_listening and not self._is_retired

    def retire(self) -> None:
        """Say NOT_SERVING to whoever asks for health, so that no more calls are sent; serve on."""
        self._is_retired = True
        self.telemetry.publish_state(is_ready=False, is_stopping=True)
        self._health.enter_graceful_shutdown()

    def stop(self) -> None:
        """Refuse new work with UNAVAILABLE, let work finish within grace_seconds, then end."""
        self._calls_in_flight.stop_admitting()
        self.retire()
        self._calls_in_flight.wait_until_none(self._settings.grace_seconds)
        try:
            has_ended = self._server.stop(_LAST_REPLIES_SECONDS).wait(_LAST_REPLIES_SECONDS + _END_SECONDS)
        except RuntimeError:  # gRPC starts a thread for this
            has_ended = False
        if not has_ended:
            _logger.error("gRPC has not ended within %g s", _LAST_REPLIES_SECONDS + _END_SECONDS)
            return
        for pool in self._pools:
            pool.shutdown(wait=False)

    def _listen(self) -> int:
        settings = self._settings
        if settings.tls_certificate is None or settings.tls_private_key is None:
            return self._server.add_insecure_port(settings.address)
        # Imported here: a server without a certificate need not load the reader of certificates.
        from sealserve_service.rpc.certificates import server_credentials

        credentials = server_credentials(
            settings.tls_certificate,
            settings.tls_private_key,
            settings.tls_client_ca,
            self.telemetry.publish_certificate_expiry,
        )
        return self._server.add_secure_port(settings.address, credentials)

    def _sweep(self, keys: RegisteredKeys) -> None:
        """Delete expired keys from time to time."""
        while not self._calls_in_flight.stopping.wait(_SWEEP_SECONDS):
            keys.sweep()
