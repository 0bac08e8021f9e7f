"""The plaintext server: the same rows over the same gRPC, unencrypted, in a process of its own.

`python -m benchmarks.plain_server WEIGHTS.npz` prints its address and serves:

    /bench/ScoreRow  takes a message with a float32 row and returns one with its float32 scores.
                     Its trailing metadata says how many seconds the arithmetic took, which
                     the service calls server_seconds.
    /bench/Score     does the same with a stream of messages, of any number of rows each.
    /bench/Drain     receives a stream of messages and drops it. Its reply is the number of bytes.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sealserve_service.allocator import keep_freed_memory
from sealserve_service.process.worker import SWITCH_SECONDS
from tests.support.programs import Program
from tests.support.serving import ROOT

SCORE_ROW, SCORE, DRAIN = "/bench/ScoreRow", "/bench/Score", "/bench/Drain"
SERVER_SECONDS = "server-seconds"


def served(weights: NDArray[np.float32], intercept: NDArray[np.float32]) -> grpc.Server:
    """Build the server; weights (classes, features)."""
    transposed = np.ascontiguousarray(weights.T)

    def score_row(message: bytes, context: grpc.ServicerContext) -> bytes:
        return b"".join(score(iter([message]), context))

    def score(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        seconds = 0.0
        for message in messages:
            start = time.perf_counter()
            scores = np.frombuffer(message, np.float32).reshape(-1, len(transposed)) @ transposed + intercept
            seconds += time.perf_counter() - start
            yield scores.tobytes()
        context.set_trailing_metadata(((SERVER_SECONDS, repr(seconds)),))

    def drain(messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield str(sum(map(len, messages))).encode()

    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    handlers = {
        "ScoreRow": grpc.unary_unary_rpc_method_handler(score_row),
        "Score": grpc.stream_stream_rpc_method_handler(score),
        "Drain": grpc.stream_stream_rpc_method_handler(drain),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    return server


@contextlib.contextmanager
def running(weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Iterator[Program]:
    """Run the server in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.npz"
        np.savez(path, weights=weights.astype(np.float32), intercept=intercept.astype(np.float32))
        command = [sys.executable, "-m", "benchmarks.plain_server", str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                yield Program(process.stdout.readline().strip(), process, Path(os.devnull))
            finally:
                process.kill()


def main() -> None:
    """Serve until killed."""
    # As the service does: it is part of the machinery.
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_freed_memory()
    with threadpool_limits(1), np.load(sys.argv[1]) as arrays:
        server = served(arrays["weights"], arrays["intercept"])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(f"127.0.0.1:{port}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
