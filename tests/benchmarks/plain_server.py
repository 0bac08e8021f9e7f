"""What encryption is compared with: the same rows in plaintext, over the same gRPC, in a process of its own.

`python -m tests.benchmarks.plain_server WEIGHTS.npz` prints its address and serves two streams of bytes:

    /bench/Score    a message of float32 rows in, their float32 scores out; says at the end, in the metadata, how many
                    seconds the arithmetic took: what the service calls server_seconds
    /bench/Drain    messages are received and dropped; says at the end how many bytes there were
"""

import contextlib
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

from sealserve_service.allocator import share_one_arena
from tests.serving import ROOT

SCORE, DRAIN = "/bench/Score", "/bench/Drain"
SERVER_SECONDS = "server-seconds"


def served(weights: NDArray[np.float32], intercept: NDArray[np.float32]) -> grpc.Server:
    """Build the server; weights (classes, features)."""
    transposed = np.ascontiguousarray(weights.T)

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
    handlers = {"Score": score, "Drain": drain}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "bench", {name: grpc.stream_stream_rpc_method_handler(handler) for name, handler in handlers.items()}
            ),
        )
    )
    return server


@contextlib.contextmanager
def running(weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Iterator[str]:
    """Run the server in a process of its own and yield its address."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.npz"
        np.savez(path, weights=weights.astype(np.float32), intercept=intercept.astype(np.float32))
        command = [sys.executable, "-m", "tests.benchmarks.plain_server", str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                yield process.stdout.readline().strip()
            finally:
                process.kill()


def main() -> None:
    """Serve until killed."""
    share_one_arena()  # as the service does: it is part of the machinery
    with threadpool_limits(1), np.load(sys.argv[1]) as arrays:
        server = served(arrays["weights"], arrays["intercept"])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(f"127.0.0.1:{port}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
