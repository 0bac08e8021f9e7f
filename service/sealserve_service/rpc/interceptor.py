"""The interceptor of every call: it authenticates, refuses unread, reads requests and maps errors.

A call takes a thread when its headers arrive. Whatever it may hold from there on is counted on its
caller's account: a wait for its request, or a stream. What exceeds the account is refused at once,
so that the thread is free again.

gRPC itself would wait for the request of a unary call, without a limit and in a thread, before any
code of ours could ask whose call it is. On the wire such a call is a stream of one message. The
interceptor therefore takes every call as a stream of bytes. If it refuses a call, it neither reads
nor decodes the request: that would take time from the calls that are being answered.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from sealserve.errors import QuotaExceededError, UnauthenticatedError
from sealserve_service.rpc.early_begin import EarlyBegin
from sealserve_service.rpc.status import fail
from sealserve_service.rpc.timed_read import LOOK_SECONDS, wait_timed
from sealserve_service.scoring.admission import EMPTY_CALLS, Admission
from sealserve_service.scoring.caller_slots import OPEN_STREAMS, SLOT_KINDS, WAITING_CALLS, CallerSlots
from sealserve_service.scoring.calls_in_flight import CallsInFlight
from sealserve_service.telemetry.call_record import REQUEST_ID, CallRecord, current_call
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.authenticator import HEALTH, Authenticator, is_local_probe, is_strangers_probe
from sealserve_service.tenants.caller import (
    STRANGER,
    Caller,
    Network,
    caller_of,
    client_host,
    current_caller,
    host_of_peer,
    stranger_at,
)
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant, current_tenant

if TYPE_CHECKING:  # it loads OpenTelemetry
    from sealserve_service.telemetry.spans import Spans

# Probes of this machine have few calls at a time, and short ones. They do not count as calls in
# flight, since a service that has no room for more calls is still alive.
_PROBES = Caller(Tenant("", models=frozenset()), "probes")
_MAX_PROBES = 32
# Those of strangers have slots of their own, of which an address may have a quarter.
_MAX_STRANGERS_PROBES = 32
_PROBE_SECONDS = 2.0
# Watches of health last as long as their clients like, and each holds a thread. They have slots of
# their own, so that they take none from other streams.
_MAX_WATCHES = 32
_OWN_SERVICES = "/sealserve.v1."
# How long calls begin early after one that was refused, because its caller has too many or owes
# some, or has no valid credentials.
_EARLY_SECONDS = 10.0


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps the handler of every method.

    Calls without valid credentials are all refused alike, whether or not the method exists.

    Args:
        telemetry: counts the calls.
        authenticator: tells whose call it is.
        proxies: those that are trusted to name the client of a call.
        timeout_seconds: how long the request of a unary call may take to arrive.
        readers: has a thread for each call, which waits for its request.
        answerers: has a thread for each call, which answers it.
        calls_in_flight, waiting_calls, open_streams: count the calls that wait, and the streams.
        admission: is charged for calls that bring nothing.
        checks: by unary method, functions that raise a ServiceError while calls are to be refused
            unread.
        wait_checks: by unary method, functions that do so for a caller whose items would wait for
            too long.
        public_health: whether strangers may ask for the health of the whole server.
        spans: makes the spans of calls; None if traces are off.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        authenticator: Authenticator,
        proxies: Sequence[Network],
        timeout_seconds: float,
        readers: Executor,
        answerers: Executor,
        calls_in_flight: CallsInFlight,
        waiting_calls: CallerSlots,
        open_streams: CallerSlots,
        upload_slots: Mapping[str, CallerSlots],
        admission: Admission,
        checks: Mapping[str, Sequence[Callable[[], None]]],
        wait_checks: Mapping[str, Callable[[Caller], None]],
        *,
        public_health: bool = False,
        spans: "Spans | None" = None,
    ) -> None:
        self._telemetry = telemetry
        self._spans = spans
        self._authenticator = authenticator
        self._proxies = proxies
        self._timeout_seconds = timeout_seconds
        self._readers = readers
        self._calls_in_flight = calls_in_flight
        self._waiting_calls = waiting_calls
        self._open_streams = open_streams
        self._waiting_probes = CallerSlots(WAITING_CALLS, _MAX_PROBES, Quota(waiting_calls=_MAX_PROBES))
        self._waiting_strangers = CallerSlots(WAITING_CALLS, _MAX_STRANGERS_PROBES, Quota())
        self._public_health = public_health
        self._watches = CallerSlots(OPEN_STREAMS, _MAX_WATCHES, Quota())
        self._admission = admission
        self._checks = checks
        self._wait_checks = wait_checks
        self._wrapped: dict[str, Any] = {}
        self._slots = dict(upload_slots)
        self._early_begin = EarlyBegin(answerers)
        self._early_until = 0.0

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Return the wrapped handler of a call's method, made once for each existing method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        is_early = time.monotonic() < self._early_until
        if wrapped is None:
            handler = continuation(handler_call_details)
            if handler is None:
                wrapped = self._wrap_single_reply(method, grpc.stream_unary_rpc_method_handler(self._unknown_method))
                return self._early_begin.whole(wrapped) if is_early else wrapped
            if not handler.response_streaming:
                wrapped = self._wrap_single_reply(method, handler)
            else:
                wrapped = self._wrap_streamed_replies(method, handler)
            self._wrapped[method] = wrapped
            self._slots.setdefault(method, self._waiting_calls)
        if is_early:
            return self._early_begin.handler(partial(self._begin_early, method), wrapped)
        return wrapped

    def _wrap_single_reply(self, method: str, handler: Any) -> Any:
        decode, encode = handler.request_deserializer, handler.response_serializer
        checks, check_wait, turns = self._checks.get(method, ()), self._wait_checks.get(method), self._admission.turns
        is_checked = method in self._checks or check_wait is not None

        def answer(stream: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            call = current_call.get(None) or self._begin(method, context)
            try:
                # Asked here, since a check of its own would lengthen the way of every row.
                if is_checked and self._calls_in_flight.stopping.is_set():
                    self._calls_in_flight.check()
                for check in checks:
                    check()
                if check_wait is not None and not turns[True].free_slots:
                    check_wait(current_caller.get())
                if handler.request_streaming:
                    reply = handler.stream_unary(_messages(stream, decode, call), context)
                else:
                    reply = handler.unary_unary(decode(self._receive_request(stream, call, context)), context)
                data: bytes = encode(reply)
                call.sent_bytes = len(data)
                if call.returns_id:
                    context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                return data
            except Exception as error:
                self._fail(context, call, error)
            finally:
                call.end(context)

        return grpc.stream_unary_rpc_method_handler(answer)

    def _wrap_streamed_replies(self, method: str, handler: Any) -> Any:
        decode, encode = handler.request_deserializer, handler.response_serializer
        is_own = method.startswith(_OWN_SERVICES)
        slots = self._open_streams if handler.request_streaming or is_own else self._watches
        self._slots[method] = slots

        def replies(stream: Iterator[bytes], call: CallRecord, context: grpc.ServicerContext) -> Any:
            if not handler.request_streaming:  # GetInputSteps, and Watch of gRPC's health service
                return handler.unary_stream(decode(self._receive_request(stream, call, context)), context)
            # Our own streams bound their waits themselves. Those of gRPC's reflection would not
            # end.
            messages = _messages if is_own else self._timed_messages
            return handler.stream_stream(messages(stream, decode, call), context)

        def answer(stream: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = current_call.get(None) or self._begin(method, context)
            try:
                with slots.hold(current_caller.get()):
                    for reply in replies(stream, call, context):
                        data = encode(reply)
                        call.sent_bytes += len(data)
                        yield data
                if call.returns_id:
                    context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            except Exception as error:
                self._fail(context, call, error)
            finally:
                call.end(context)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _begin(self, method: str, context: grpc.ServicerContext, slots: CallerSlots | None = None) -> CallRecord:
        """Begin the record of a call, and end a call here whose caller may make none.

        It has no valid credentials, or owes requests.
        """
        sent_id: str | bytes = ""
        for key, value in context.invocation_metadata():
            if key == REQUEST_ID:
                sent_id = value
                break
        call = CallRecord(method, self._telemetry, sent_id, context.peer)
        current_call.set(call)
        host = client_host(context, self._proxies) if self._proxies else host_of_peer(context.peer())
        call.client = host if self._proxies else ""
        if method.startswith(HEALTH) and is_local_probe(method, context, self._proxies):
            current_caller.set(_PROBES)
            return call
        try:
            try:
                tenant = self._authenticator.authenticate(context)
            except UnauthenticatedError:
                if self._public_health and is_strangers_probe(method, context):
                    self._begin_strangers_probe(call, stranger_at(host))
                    return call
                raise
            call.tenant = tenant.name
            if self._spans is not None:
                name = "" if tenant is ANONYMOUS else tenant.name
                call.span = self._spans.begin(method, name, context.invocation_metadata())
            current_tenant.set(tenant)
            caller = caller_of(tenant, host)
            current_caller.set(caller)
            if caller.name in self._admission.charged_in_vain:
                self._admission.check_debt(caller)
            if slots is not None:
                with slots.hold(caller):
                    pass  # it has one: it would be refused otherwise
        except Exception as error:
            self._early_until = time.monotonic() + _EARLY_SECONDS
            try:
                fail(context, call, error)
            finally:
                call.end(context)
        return call

    def _begin_strangers_probe(self, call: CallRecord, caller: Caller) -> None:
        """Begin a call of a caller who may ask for health without a tenant.

        Raises:
            UnauthenticatedError: the caller has made many calls that brought nothing.
        """
        call.returns_id = False  # it would tell a stranger what service answers
        current_caller.set(caller)
        if caller.name in self._admission.charged_in_vain:
            try:
                self._admission.check_debt(caller)
            except QuotaExceededError:
                raise UnauthenticatedError from None

    def _begin_early(self, method: str, context: grpc.ServicerContext) -> bool:
        """Begin a call on gRPC's own thread; return whether it goes on.

        To break a call off takes less time than an answer that it is refused.
        """
        if self._admission.charged_in_vain and not method.startswith(HEALTH) and self._is_ignored(context):
            self._telemetry.refuse(QuotaExceededError.__name__, EMPTY_CALLS)
            self._telemetry.methods[method].calls["CANCELLED"].inc()
            context.cancel()  # type: ignore[no-untyped-call]  # in the stubs
            return False
        self._begin(method, context, self._slots[method])
        return True

    def _is_ignored(self, context: grpc.ServicerContext) -> bool:
        try:
            tenant = self._authenticator.authenticate(context)
        except UnauthenticatedError:  # it is told so each time
            return False
        caller = caller_of(tenant, client_host(context, self._proxies))
        return caller.name in self._admission.charged_in_vain and self._admission.is_ignored(caller)

    def _fail(self, context: grpc.ServicerContext, call: CallRecord, error: Exception) -> NoReturn:
        """End a call that has raised. If its caller has too many, calls begin early from now on.

        Whatever a stranger's probe has done wrong, it learns what any call without credentials
        learns.
        """
        if current_caller.get().tenant is STRANGER and not isinstance(error, grpc.RpcError):
            error = UnauthenticatedError()
        if isinstance(error, QuotaExceededError) and error.quota in SLOT_KINDS:
            self._early_until = time.monotonic() + _EARLY_SECONDS
        fail(context, call, error)

    def _unknown_method(self, _: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        self._early_until = time.monotonic() + _EARLY_SECONDS
        self._admission.count_empty(current_caller.get())
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    def _timed_messages(
        self, stream: Iterator[bytes], decode: Callable[[bytes], Any], call: CallRecord
    ) -> Iterator[Any]:
        """Yield the requests of a streaming call, each of which may take only so long to arrive."""
        while (data := self._receive_request(stream, call)) is not None:
            yield decode(data)

    def _receive_request(
        self, stream: Iterator[bytes], call: CallRecord, context: grpc.ServicerContext | None = None
    ) -> Any:
        """Return the next message of a call, in bytes. Meanwhile the call is waiting.

        Args:
            stream: the messages.
            call: counts the bytes.
            context: of a unary call, which fails if it has no message; others get None.

        Raises:
            QuotaExceededError: the caller has too many waiting calls, or there are too many calls.
            ItemTimeoutError: it took too long.
        """
        caller, in_flight, longest = current_caller.get(), self._calls_in_flight, self._timeout_seconds
        if caller is _PROBES:
            longest, slots, other_count = min(longest, _PROBE_SECONDS), self._waiting_probes, 0
        elif caller.tenant is STRANGER:
            longest, slots, other_count = min(longest, _PROBE_SECONDS), self._waiting_strangers, 0
        else:
            slots, other_count = self._waiting_calls, in_flight.count
        with slots.hold(caller, other_count):
            began, message = time.monotonic(), self._readers.submit(next, stream, None)
            try:
                try:
                    data = message.result(min(longest, LOOK_SECONDS))
                except TimeoutError:
                    data = wait_timed(message, began, lambda: in_flight.shortened(longest))
            except Exception:
                self._admission.charge_in_vain(caller)
                raise
        if data is not None:
            call.received_bytes += len(data)
        elif context is not None:
            self._admission.charge_in_vain(caller)
            if caller.tenant is STRANGER:
                raise UnauthenticatedError
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its request")
        return data


def _messages(stream: Iterator[bytes], decode: Callable[[bytes], Any], call: CallRecord) -> Iterator[Any]:
    """Yield the requests of a streaming call."""
    for data in stream:
        call.received_bytes += len(data)
        yield decode(data)
