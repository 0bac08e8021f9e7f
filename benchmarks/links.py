"""Real links: MNIST's rows over TLS, through a proxy that delays and throttles.

A service of each mode is asked over each link for single rows, for a stream of rows, and for a
batch in columns:

- before: full uploads, and replies that are not packed
- full: full uploads, and packed replies
- seeded: seeded uploads, and packed replies
- by itself: a client that chooses by what its calls show of the link

The proxy simulates no loss, and none of TCP's slow start. Prints tables, and writes links.json
into build/bench.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, percent, render
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.linear import base
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.certificates import Authority
from tests.support.reply_pairs import unpacked
from tests.support.serving import ROOT, SETTINGS, registered_keys, running_server, served
from tests.support.slow_link import slow_link

LINKS = {"20 ms, 100 Mbit/s": (0.02, 100e6), "50 ms, 20 Mbit/s": (0.05, 20e6)}
MODES = {"private": 40, "open": None}
# Whether replies are packed, and `Client.seeded`.
FORMS: dict[str, tuple[bool, bool | None]] = {
    "before": (False, False),
    "full": (True, False),
    "seeded": (True, True),
    "by itself": (True, None),
}
BATCH_FORMS = ("before", "by itself")  # a full upload takes minutes on the slower link
WARM_ROWS = 10  # after which a client knows its link
ROWS, STREAM_ROWS = 40, 60
TIMEOUT_SECONDS = 300.0


@contextmanager
def service(mode: str, directory: Path, *, is_packed: bool) -> Iterator[int]:
    """Run a service in a process of its own; give its port."""
    command = [sys.executable, "-m", "benchmarks.links", "--serve", mode, "--certificate", str(directory)]
    with subprocess.Popen(
        [*command, *([] if is_packed else ["--unpacked"])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def serve(mode: str, directory: Path, *, is_packed: bool) -> None:
    """Be that service, until the standard input ends."""
    path = mnist.find(mnist.MODEL)
    assert path is not None
    if not is_packed:
        make = base.LinearEngine.__init__

        def make_unpacked(self: Any, plan: Any, *arguments: Any, **options: Any) -> None:
            make(self, unpacked(plan), *arguments, **options)

        base.LinearEngine.__init__ = make_unpacked  # type: ignore[method-assign]
    keys = registered_keys(ready_zeros=SETTINGS.ready_zeros if is_packed else 0)
    model = load_model(path, trust_pickle=True)
    settings = SETTINGS.with_changes(tls_certificate=directory / "server.crt", tls_private_key=directory / "server.key")
    hiding_bits = MODES[mode]
    models = [served("mnist", model, keys=keys if hiding_bits else None, hiding_bits=hiding_bits)]
    with running_server(ModelRegistry(models), settings, keys) as address:
        print(address.rpartition(":")[2], flush=True)
        sys.stdin.read()


def single_rows(client: Client, rows: NDArray[np.float64]) -> dict[str, float]:
    """Time single rows, after some that show the client its link."""
    seconds = list[float]()
    for row in rows[:, None]:
        start = time.perf_counter()
        client.predict(row)
        seconds.append(time.perf_counter() - start)
    warm = 1e3 * np.array(seconds[WARM_ROWS:])
    reply = client.send(client.encrypt(rows[:1]))
    return {
        "p50_ms": float(np.median(warm)),
        "p99_ms": float(np.quantile(warm, 0.99)),
        "up_bytes": reply.request_bytes,
        "down_bytes": reply.reply_bytes,
    }


def stream(client: Client, rows: NDArray[np.float64]) -> dict[str, float]:
    """Time a stream of rows, each in an item of its own."""
    start = time.perf_counter()
    with closing(client.stream(rows)) as results:
        count = sum(1 for _ in results)
    return {"stream_rows_per_second": count / (time.perf_counter() - start)}


def batch(client: Client, rows: NDArray[np.float64]) -> dict[str, float]:
    """Time a full item in columns, after the client's first call."""
    client.register_key(len(rows))
    start = time.perf_counter()
    client.predict(rows)
    seconds, item = time.perf_counter() - start, client.encrypt(rows)
    return {
        "batch_rows_per_second": len(rows) / seconds,
        "batch_up_bytes": item.byte_count / len(rows),
        "batch_down_bytes": client.offer(len(rows)).cost.reply_bytes / len(rows),
    }


def measure(images: NDArray[np.float64], row_count: int, *, with_batches: bool) -> list[dict[str, Any]]:
    """Measure every mode over every link in every form."""
    results = list[dict[str, Any]]()
    authority = Authority("links")
    credentials = Credentials(ca_certificate=authority.certificate)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        authority.issue("service.example.org").write(directory)
        cases = [(mode, link, form) for mode in MODES for link in LINKS for form in FORMS]
        ports = {
            (mode, is_packed): stack.enter_context(service(mode, directory, is_packed=is_packed))
            for mode in MODES
            for is_packed in (True, False)
        }
        for mode, link, form in tqdm(cases, leave=False):
            is_packed, seeded = FORMS[form]
            result: dict[str, Any] = {"mode": mode, "link": link, "form": form}
            with slow_link(ports[mode, is_packed], *LINKS[link]) as port:
                address = f"127.0.0.1:{port}"
                options: dict[str, Any] = {"credentials": credentials, "timeout_seconds": TIMEOUT_SECONDS}
                with Client(address, layout="row", seeded=seeded, **options) as client:
                    result |= single_rows(client, images[: WARM_ROWS + row_count])
                    result |= stream(client, images[: 2 * row_count])
                if with_batches and form in BATCH_FORMS:
                    with Client(address, layout="column", seeded=seeded, **options) as client:
                        result |= batch(client, images[: client.offer(len(images)).rows_per_item])
            results.append(result)
    return results


def shorter(results: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    """How much sooner a row is answered than before: (mode, link, share of the time saved)."""
    found = {(result["mode"], result["link"], result["form"]): result["p50_ms"] for result in results}
    return [
        (mode, link, 1 - found[mode, link, "by itself"] / milliseconds)
        for (mode, link, form), milliseconds in found.items()
        if form == "before"
    ]


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: a line a form."""
    columns = [
        ("row, p50, ms", "p50_ms", "{:.1f}"),
        ("p99, ms", "p99_ms", "{:.1f}"),
        ("bytes up", "up_bytes", "{:.0f}"),
        ("down", "down_bytes", "{:.0f}"),
        ("stream, rows/s", "stream_rows_per_second", "{:.0f}"),
        ("batch, rows/s", "batch_rows_per_second", "{:.0f}"),
        ("bytes up a row", "batch_up_bytes", "{:.0f}"),
        ("down", "batch_down_bytes", "{:.0f}"),
    ]
    said = [("weights", "link", "uploads", *(title for title, _, _ in columns))]
    for result in results:
        cells = (pattern.format(result[key]) if key in result else "" for _, key, pattern in columns)
        said.append((result["mode"], result["link"], result["form"], *cells))
    sooner = [(mode, link, percent(share)) for mode, link, share in shorter(results)]
    return render(said) + "\n\n" + render([("weights", "link", "time of a row that is saved"), *sooner])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="single rows of each kind (%(default)s)")
    parser.add_argument("--no-batches", action="store_true", help="leave out the batches, which take longest")
    parser.add_argument("--serve", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--certificate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--unpacked", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.certificate, is_packed=not arguments.unpacked)
        return
    images = mnist.images()
    if images is None or mnist.find(mnist.MODEL) is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    results = measure(images, arguments.rows, with_batches=not arguments.no_batches)
    (OUTPUT / "links.json").write_text(json.dumps(described_run() | {"links": results}, indent=2) + "\n")
    print(table(results))
    print(f"written: {OUTPUT / 'links.json'}")


if __name__ == "__main__":
    main()
