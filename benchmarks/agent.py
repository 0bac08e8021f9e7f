"""The agent beside the SDK: what it adds to a row and to a batch, and what many callers get.

The service, the agent and its callers are processes of their own. The model is that of a table of
30 features, whose rows share ciphertexts; the agent takes gRPC on a Unix socket. With --languages,
programs in Go, Java and Node ask the same agent for the same rows, by turns with Python.

What gRPC itself costs, two others show in the same turns: an empty call, and a bare server in the
agent's place, which checks nothing and only hands the values of a row to a client.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from sealserve.inference import open_inference_pb2 as pb
from sealserve.inference import open_inference_pb2_grpc
from tests.support.agents import request
from tests.support.language_examples import LANGUAGES, Built, build
from tests.support.programs import serve

CALLERS = (1, 2, 4, 8, 16)
CALLS = 200
"""Of single rows in a round of the languages, as many as the examples time."""
_NEVER = 1 << 30
_PROGRAM = """\
import sys
from sealserve.agent import coalescing
from sealserve.agent.command import COMMAND
from sealserve.cli import main
coalescing.CALLS = int(sys.argv.pop(1)) or coalescing.CALLS
main.commands = lambda name="": [COMMAND]
sys.exit(main.main())
"""
_BARE_PROGRAM = """\
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
import numpy as np
from sealserve.client import Client
from sealserve.inference import open_inference_pb2 as pb, open_inference_pb2_grpc
target, address = sys.argv[1:]
client = Client(target, model="table")
class Bare(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    def ModelInfer(self, request, context):
        labels = client.predict(np.frombuffer(request.raw_input_contents[0]).reshape(request.inputs[0].shape))
        return pb.ModelInferResponse(raw_output_contents=[labels.tobytes()])
server = grpc.server(ThreadPoolExecutor(8))
open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Bare(), server)
server.add_insecure_port(address)
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""

Stub = open_inference_pb2_grpc.GRPCInferenceServiceStub


@contextlib.contextmanager
def agent(target: str, calls: int = 0) -> Iterator[tuple[str, Stub]]:
    """Run an agent; give its address and a stub of it.

    Args:
        target: the service's address.
        calls: how many calls may be under way before rows wait; 0 for the agent's own choice.
    """
    options = ["agent", "--target", target, "--no-agent-token", "--log-level", "error", "--listen"]
    with listening(_PROGRAM, str(calls), *options) as found:
        yield found


@contextlib.contextmanager
def listening(program: str, *options: str) -> Iterator[tuple[str, Stub]]:
    """Run a program that takes its address last and prints a line when it listens; give both."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"unix:{folder}/agent.sock"
        command = [sys.executable, "-c", program, *options, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
            try:
                assert process.stdout
                assert process.stdout.readline(), "it did not start; what it says is above"
                with grpc.insecure_channel(path) as channel:
                    yield path, Stub(channel)
            finally:
                process.terminate()


def alternate(acts: Mapping[str, Callable[[], Any]], count: int) -> dict[str, float]:
    """Time functions by turns; return the median of each, in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for act in acts.values():
        act()
    for _ in range(count):
        for name, act in acts.items():
            begin = time.perf_counter()
            act()
            seconds[name].append(time.perf_counter() - begin)
    return {name: 1e3 * median(times) for name, times in seconds.items()}


def added(client: Client, stub: Stub, bare: Stub, rows: NDArray[np.float64], count: int) -> dict[str, float]:
    """Measure the same rows through the SDK, the agent and a bare server, and an empty call."""
    message, nothing = request("table", rows, outputs=["label"]), pb.ServerLiveRequest()
    acts = {
        "sdk_ms": lambda: client.predict(rows),
        "agent_ms": lambda: stub.ModelInfer(message),
        "bare_ms": lambda: bare.ModelInfer(message),
        "empty_call_ms": lambda: stub.ServerLive(nothing),
    }
    return alternate(acts, count)


def by_language(
    examples: list[Built],
    client: Client,
    path: str,
    stub: Stub,
    rows: NDArray[np.float64],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, float]]:
    """Measure a row and a batch in each language, in rounds; return the medians, in milliseconds.

    A program in another language times its own calls, after as many that it does not time.
    """
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        np.savetxt(file, rows, delimiter=",", fmt="%.17g", header=",".join(map(str, range(rows.shape[1]))), comments="")
        for _ in range(arguments.rounds):
            for name, values, count in (("row_ms", rows[:1], CALLS), ("batch_ms", rows, 3)):
                message = request("table", values)
                asked = {
                    "Python, no agent": partial(client.predict, values),
                    "Python": partial(stub.ModelInfer, message),
                }
                for who, milliseconds in alternate(asked, count).items():
                    found.setdefault(who, {}).setdefault(name, []).append(milliseconds)
            for example in examples:
                said = subprocess.run(
                    example.command(path, "", "time", "table", file), capture_output=True, text=True, check=True
                ).stdout.splitlines()
                for name, line in zip(("row_ms", "batch_ms"), said, strict=True):
                    found.setdefault(example.language, {}).setdefault(name, []).append(float(line.split()[1]))
    return {who: {name: median(times) for name, times in of.items()} for who, of in found.items()}


def rows_per_second(stub: Stub, rows: NDArray[np.float64], callers: int, seconds: float) -> float:
    """Let callers ask for single rows, one after the other; return the rows a second of all."""
    messages = [request("table", rows[place : place + 1], outputs=["label"]) for place in range(64)]
    end = time.perf_counter() + seconds

    def ask(number: int) -> int:
        count = 0
        while time.perf_counter() < end:
            stub.ModelInfer(messages[(number + count) % len(messages)])
            count += 1
        return count

    with ThreadPoolExecutor(callers) as pool:
        begin = time.perf_counter()
        total = sum(pool.map(ask, range(callers)))
        return total / (time.perf_counter() - begin)


def measure(arguments: argparse.Namespace, folder: Path, examples: list[Built]) -> dict[str, Any]:
    """Serve the model, and measure everything."""
    table, labels = load_breast_cancer(return_X_y=True)
    rows = minmax_scale(table)
    skops.io.dump(LogisticRegression(max_iter=1000).fit(rows, labels), folder / "table.skops")
    batch = np.tile(rows, (8, 1))[: arguments.batch]
    options = [f"--model=table={folder / 'table.skops'}", "--input-range=0,1", f"--weights={arguments.weights}"]
    with serve(*options) as program, Client(program.address, model="table") as client:
        result: dict[str, Any] = {"weights": arguments.weights, "batch_rows": len(batch)}
        result["rows_per_item"] = client.offer().rows_per_item
        with agent(program.address) as (path, stub):
            with listening(_BARE_PROGRAM, program.address) as (_, bare):
                result["row"] = added(client, stub, bare, rows[:1], arguments.calls)
                result["batch"] = added(client, stub, bare, batch, max(3, arguments.calls // 50))
            if examples:
                result["languages"] = by_language(examples, client, path, stub, batch, arguments)
        throughput = result["throughput"] = []
        for callers in CALLERS:
            point: dict[str, float] = {"callers": callers}
            for name, calls in (("apart", _NEVER), ("coalesced", 0)):
                with agent(program.address, calls) as (_, stub):
                    rows_per_second(stub, rows, callers, arguments.seconds / 4)  # warm
                    point[name] = rows_per_second(stub, rows, callers, arguments.seconds)
            throughput.append(point)
    return result


def report(result: dict[str, Any]) -> str:
    """Render what was measured."""
    cells = [["what", "SDK, ms", "agent, ms", "added", "a bare server, ms", "an empty call, ms"]]
    for name, label in (("row", "one row"), ("batch", f"{result['batch_rows']:,} rows")):
        sdk, through, bare, empty = (result[name][f"{what}_ms"] for what in ("sdk", "agent", "bare", "empty_call"))
        added_time = f"{through - sdk:.2f} ms, {through / sdk - 1:.0%}"
        cells.append([label, f"{sdk:.2f}", f"{through:.2f}", added_time, f"{bare:.2f}", f"{empty:.2f}"])
    speeds = [["callers of single rows", "each row apart, rows/s", "coalesced, rows/s"]]
    speeds += [[str(p["callers"]), f"{p['apart']:.0f}", f"{p['coalesced']:.0f}"] for p in result["throughput"]]
    languages = [["caller", "one row, ms", f"{result['batch_rows']:,} rows, ms"]]
    languages += [
        [who, f"{of['row_ms']:.2f}", f"{of['batch_ms']:.2f}"] for who, of in result.get("languages", {}).items()
    ]
    return "\n\n".join(render(table) for table in (cells, languages, speeds) if len(table) > 1)


def main() -> None:
    """Measure, print, and write agent.json into build/bench."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent", description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="single rows to time (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each point of throughput (%(default)g)")
    parser.add_argument("--batch", type=int, default=4096, help="rows of a batch (%(default)s)")
    parser.add_argument("--weights", choices=("private", "open"), default="private", help="(%(default)s)")
    parser.add_argument(
        "--languages", nargs="*", default=[], choices=LANGUAGES, help="build these examples and time them, too"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the languages by turns (%(default)s)")
    arguments = parser.parse_args()
    described = described_run()
    with tempfile.TemporaryDirectory() as folder:
        examples = [build(language, Path(folder)) for language in arguments.languages]
        result = described | measure(arguments, Path(folder), examples)
    (OUTPUT / "agent.json").write_text(json.dumps(result, indent=2))
    print(report(result))


if __name__ == "__main__":
    main()
