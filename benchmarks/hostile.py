"""Hostile peers: what one tenant notices while others send what they should not.

The tenant asks for one row after the other, first alone, then beside peers in processes of their
own: strangers without a token, connections that stay half open, metadata bombs, messages over the
limit, and a tenant whose ciphertexts are garbage. The fairness is that beside a tenant that takes
what others need: calls without bodies, stalled uploads of keys, idle streams. Prints tables, and
writes hostile.json into build/bench.

With --messages it sends so many hostile messages to one service instead: mutated fields, raw
frames, rapid resets, slow bodies. It writes hostile_messages.json. A million take at most 20
minutes on two cores. It fails if the service does, if it grows, or if a good client gets a wrong
score.
"""

import argparse
import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tqdm import tqdm

from benchmarks import hostile_messages
from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.wire import header_to_proto
from tests.support import http2
from tests.support.identities import ALL, IdentitiesFile
from tests.support.programs import serve
from tests.support.raw import Request
from tests.support.serving import LIMITS, ROOT

METHOD = "/sealserve.v1.PredictionService/Predict"
RATE = 40.0  # of each kind of bad call, per second
HALF_OPEN = 100
STREAM = "/sealserve.v1.PredictionService/StreamPredict"
# Of a greedy tenant: the method whose calls it begins, how many on one connection, and how long it
# holds them.
GREEDY = {
    "calls without bodies": (METHOD, 330, 5.0),
    "stalled uploads of keys": ("/sealserve.v1.KeyService/RegisterKey", 16, 5.0),
    "idle streams": (STREAM, 330, 5.0),
    "idle streams, anew each second": (STREAM, 330, 1.0),
    "calls without bodies, anew each second": (METHOD, 330, 1.0),
}
TIMEOUT_SECONDS = 20.0


def attack(kind: str, address: str, token: str) -> None:
    """Send bad calls of a kind until killed."""
    if kind == "half-open connections":
        _hold_open(address)
    if kind in GREEDY:
        _take(address, token, *GREEDY[kind])
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    with grpc.insecure_channel(address, options=options) as channel:
        predict = channel.unary_unary(METHOD, bytes, bytes)
        with Client(address, credentials=Credentials(token=token)) as client:
            model = client.model
        offer = model.offers[0]
        header = ItemHeader(
            model=model.name,
            config_id=model.config_id,
            layout=offer.layout,
            parameter_set=offer.parameters.parameter_set.name,
            row_count=1,
            ciphertext_count=1,
        )
        garbage = secrets.token_bytes(offer.cost.request_bytes)
        own = (("authorization", f"Bearer {token}"),)
        bad: dict[str, tuple[bytes, tuple[tuple[str, str], ...]]] = {
            "strangers": (Request(header=header_to_proto(header), ciphertexts=[garbage]).SerializeToString(), ()),
            "metadata bombs": (b"", (*own, ("x-bomb", "x" * 100_000))),
            "messages over the limit": (bytes(3 * LIMITS.max_message_bytes), own),
            "garbage for ciphertexts": (
                Request(header=header_to_proto(header), ciphertexts=[garbage]).SerializeToString(),
                own,
            ),
        }
        message, metadata = bad[kind]
        while True:
            start = time.perf_counter()
            with contextlib.suppress(grpc.RpcError):
                predict(message, metadata=metadata, timeout=TIMEOUT_SECONDS)
            time.sleep(max(0.0, start + 1 / RATE - time.perf_counter()))


def _hold_open(address: str) -> None:
    host, _, port = address.rpartition(":")
    start = http2.call(METHOD.encode(), b"x")[:-6]  # of its one message, nothing ever comes
    while True:
        connections = [socket.create_connection((host, int(port))) for _ in range(HALF_OPEN)]
        for connection in connections:
            connection.sendall(start)
        time.sleep(5)
        for connection in connections:
            connection.close()


def _take(address: str, token: str, path: str, count: int, seconds: float) -> None:
    opening = http2.opening(path.encode(), count, authorization=f"Bearer {token}")
    while True:
        with http2.connected(address, seconds) as connection, contextlib.suppress(OSError):
            connection.sendall(opening)
            while connection.recv(1 << 16):  # until nothing has come for so long
                pass


KINDS = ("strangers", "half-open connections", "metadata bombs", "messages over the limit", "garbage for ciphertexts")


@contextlib.contextmanager
def attacking(kinds: tuple[str, ...], address: str, token: str) -> Iterator[None]:
    """Have each kind of bad peer at work, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--address", address, "--token", token, "--attack"]
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            process = stack.enter_context(subprocess.Popen([*command, kind], cwd=ROOT))
            stack.callback(process.kill)
        time.sleep(3)  # until they have begun
        yield


def latencies(call: Callable[[], Any], count: int, description: str) -> list[float]:
    """Call one after the other; returns milliseconds."""
    samples = []
    for _ in tqdm(range(count), desc=description, unit="call", leave=False):
        start = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - start))
    return samples


def p99(call: Callable[[], Any], count: int, description: str) -> float:
    """Call one after the other; returns the 99th percentile in milliseconds."""
    return float(np.quantile(latencies(call, count, description), 0.99))


def fairness(call: Callable[[], Any], count: int, address: str, bad_token: str) -> dict[str, dict[str, float]]:
    """Return the percentiles of a tenant's calls alone, and beside a greedy tenant of each kind.

    Those alone come half before and half after the others, as a machine is faster at times.
    """
    found = {}
    for kind in GREEDY:
        alone = latencies(call, count // 2, "alone")
        with attacking((kind,), address, bad_token):
            beside = latencies(call, count, kind)
        alone += latencies(call, count // 2, "alone")
        found[kind] = {
            f"{name}_p{percent}_ms": float(np.percentile(samples, percent))
            for name, samples in (("alone", alone), ("beside", beside))
            for percent in (50, 99)
        }
    return found


def measure(calls: int) -> dict[str, Any]:
    """Ask alone, and beside each kind of bad peer."""
    row = np.random.default_rng(0).random((1, 784))
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.npz"
        np.savez(model, coef=np.random.default_rng(1).normal(size=(10, 784)), intercept=np.zeros(10))
        identities = IdentitiesFile(Path(directory) / "identities.toml", clinic=ALL, mallory=ALL)
        token, bad_token = identities.token("clinic"), identities.token("mallory")
        options = [f"--model={model}", "--input-range=0,1", f"--identities={identities.path}"]
        with (
            serve(*options) as program,
            Client(program.address, credentials=Credentials(token=token)) as client,
        ):
            client.predict(row)
            alone = p99(lambda: client.predict(row), calls, "alone")
            beside = {}
            for kind in KINDS:
                with attacking((kind,), program.address, bad_token):
                    beside[kind] = p99(lambda: client.predict(row), calls, kind)
            again = p99(lambda: client.predict(row), calls, "alone again")
            greedy = fairness(lambda: client.predict(row), calls, program.address, bad_token)
    return {"alone_ms": alone, "alone_again_ms": again, "beside_ms": beside, "fairness": greedy}


def table(result: dict[str, Any]) -> str:
    """Render the result."""
    said = []
    if "alone_ms" in result:
        alone = max(result["alone_ms"], result["alone_again_ms"])
        rows = [("p99 of a tenant's rows", "ms", "over alone"), ("alone", f"{alone:.1f}", "")]
        rows += [(f"beside {kind}", f"{ms:.1f}", f"{ms / alone:.2f}") for kind, ms in result["beside_ms"].items()]
        said.append(render(rows))
    if "fairness" in result:  # results of earlier versions are without it
        said.append(fairness_table(result["fairness"]))
    return "\n\n".join(said)


def fairness_table(found: dict[str, dict[str, float]]) -> str:
    """Render the fairness."""
    rows: list[tuple[str, ...]] = [
        ("a tenant beside one with", "p50, ms", "alone", "p99, ms", "alone", "p99 over alone")
    ]
    for kind, ms in found.items():
        figures = [f"{ms[f'{name}_p{percent}_ms']:.1f}" for percent in (50, 99) for name in ("beside", "alone")]
        rows.append((kind, *figures, f"{ms['beside_p99_ms'] / ms['alone_p99_ms']:.2f}"))
    return render(rows)


def main() -> None:
    """Run the benchmark, or one of its bad peers, or send many messages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="calls for each figure (%(default)s)")
    parser.add_argument("--messages", type=int, metavar="N", help="send N hostile messages, and do nothing else")
    for option in ("--attack", "--address", "--token"):
        parser.add_argument(option, default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        attack(arguments.attack, arguments.address, arguments.token)
    report = described_run()
    if arguments.messages is None:
        name, result = "hostile", measure(arguments.calls)
        print(table(result))
    else:
        name, result = "hostile_messages", hostile_messages.measure(arguments.messages)
        print(hostile_messages.table(result))
    (OUTPUT / f"{name}.json").write_text(json.dumps(report | {name: result}, indent=2) + "\n")
    print(f"written: {OUTPUT / f'{name}.json'}")
    if result.get("faults"):
        sys.exit("the service is at fault; see above")


if __name__ == "__main__":
    main()
