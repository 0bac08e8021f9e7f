"""The early begin: while callers are refused, every call begins on gRPC's own thread.

A call that its handler refuses has taken a thread by then. Hundreds of such threads at once compete
for the GIL with the calls that are answered. A call that is refused on gRPC's own thread takes no
other. The rest of a call that is not refused runs in a thread of the pool.

gRPC offers this as experimental attributes of a handler's function, and for streams of replies
only. On the wire a unary call is a stream of one message, and is answered as one here. That takes
a little longer: one more thing to send.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import grpc

Send = Callable[[bytes | None], None]

# After each call that ends here. A thread that has the next call at hand keeps the GIL for Python's
# switch interval of 5 ms, again and again. Threads that answer a call need it several times.
_PAUSE_SECONDS = 5e-5


class ServingThread(ThreadPoolExecutor):
    """Runs a function at once, in the thread that submits it, which is gRPC's own.

    gRPC insists on a pool of the standard library. This one never starts a thread.

    Attributes:
        rest: of the call that begins, what runs elsewhere; gRPC counts the call until that ends.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self.rest: Future[None] | None = None

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function that catches all errors."""
        self.rest = None
        function(*args, **kwargs)
        if self.rest is None:
            time.sleep(_PAUSE_SECONDS)
            self.rest = Future()
            self.rest.set_result(None)
        return self.rest


class EarlyBegin:
    """Makes handlers whose calls begin on gRPC's own thread.

    Args:
        threads: for the rest of the calls that go on.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._serving_thread = ServingThread()

    def handler(self, begin: Callable[[grpc.ServicerContext], bool], handler: Any) -> Any:
        """Return a handler that answers as another one does, but begins early.

        Args:
            begin: begins a call, and returns whether it goes on. It must not block.
            handler: the other one, which takes a stream of requests. It finds what `begin` has set
                in its context variables.
        """
        answer = handler.stream_stream or handler.stream_unary

        def begin_here(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
            if begin(context):
                self._serving_thread.rest = self._threads.submit(copy_context().run, go_on, requests, context, send)

        def go_on(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
            with suppress(Exception):  # whatever has failed, the answer has set the status
                answered = answer(requests, context)
                for reply in answered if handler.response_streaming else (answered,):
                    send(reply)
                    if not context.is_active():
                        return
            send(None)

        begin_here.experimental_thread_pool = self._serving_thread  # type: ignore[attr-defined]
        begin_here.experimental_non_blocking = True  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(begin_here)

    def whole(self, handler: Any) -> Any:
        """Return a handler of a single reply whose calls end on gRPC's own thread too.

        Args:
            handler: whose calls neither block nor read their request.
        """
        handler.stream_unary.experimental_thread_pool = self._serving_thread
        return handler
