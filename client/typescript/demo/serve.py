"""Serve the demo page, and two models for it, once with open and once with private weights.

Envoy serves the page and gRPC-Web on one port of this machine, and passes calls on to the services.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from models import saved_models

Json: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "deploy/envoy/envoy.yaml"
BUILT = ROOT / "build/demo-web"
MODES = ("open", "private")
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_START_SECONDS = 30.0
_MAX_FILE_BYTES = 4 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for path in (options.envoy, options.files / "index.html"):
        if not path.is_file():
            parser.error(f"{path} is missing: `make demo-web` installs Envoy and builds the page")
    if _listens(options.port):
        parser.error(f"port {options.port} is in use: choose another one by --port")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with tempfile.TemporaryDirectory(prefix="sealserve-demo-") as name, ExitStack() as running:
            folder = Path(name)
            print("training a model of digits, and one of loans ...", file=sys.stderr, flush=True)
            models = saved_models(folder)
            services = {mode: running.enter_context(_service(models, mode)) for mode in MODES}
            configuration = folder / "envoy.yaml"
            configuration.write_text(yaml.safe_dump(_configuration(options.files, options.port, services)))
            proxy = running.enter_context(_envoy(options.envoy, configuration, options.port))
            print(f"open http://127.0.0.1:{options.port}/ (Ctrl-C ends it)", flush=True)
            return proxy.wait()
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make demo-web",
        description="A page that encrypts in the browser: it trains and serves two models, and serves the page on "
        'this machine only. `make demo-web WEB="--port 9000"` passes options on.',
    )
    parser.add_argument("--port", type=int, default=8008, help="where the page is (%(default)s)")
    parser.add_argument(
        "--envoy", type=Path, default=ROOT / "build/envoy/bin/envoy", metavar="FILE", help="Envoy (%(default)s)"
    )
    parser.add_argument("--files", type=Path, default=BUILT, metavar="FOLDER", help="what Vite has built (%(default)s)")
    return parser


@contextmanager
def _service(models: list[str], mode: str) -> Iterator[str]:
    """Run a service on a free port; gives its address."""
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--trust-pickle", *models, "--weights", mode]
    command += ["--address", "127.0.0.1:0", "--ei-engine", "none", "--processes", "1", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own program
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit("a service did not start; what it says is above")
            print(f"a service with {mode} weights, process {process.pid}", file=sys.stderr, flush=True)
            yield line.split()[-1]
        finally:
            process.terminate()


@contextmanager
def _envoy(executable: Path, configuration: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Envoy, once it listens."""
    command: list[str | Path] = [executable, "-c", configuration, "--disable-hot-restart", "--concurrency", "1"]
    with subprocess.Popen([*command, "--log-level", "error"]) as process:  # noqa: S603  # the program that was named
        try:
            ends = time.monotonic() + _START_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > ends:
                    sys.exit("Envoy did not start; what it says is above")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _configuration(files: Path, port: int, services: dict[str, str]) -> Json:
    """Return deploy/envoy's configuration, with the page, and with a path for each service.

    The page and the services have one origin, so that CORS lets nobody else in. Operators' pages
    are left out.
    """
    whole: Json = yaml.safe_load(CONFIGURATION.read_text())
    del whole["admin"]
    listener = _named("calls", whole["static_resources"]["listeners"])
    cluster = _named("sealserve", whole["static_resources"]["clusters"])
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes: Json = manager["route_config"]
    routes["max_direct_response_body_size_bytes"] = _MAX_FILE_BYTES
    (host,) = routes["virtual_hosts"]
    del host["typed_per_filter_config"]
    (route,) = (each for each in host["routes"] if "prefix" in each["match"])
    host["routes"] = [
        *(_of_service(route, mode) for mode in services),
        *(_of_file(files, path) for path in sorted(files.rglob("*.*")) if path.suffix in TYPES),
    ]
    clusters = [_cluster(cluster, *service) for service in services.items()]
    whole["static_resources"] = {"listeners": [listener], "clusters": clusters}
    return whole


def _named(name: str, resources: list[Json]) -> Json:
    (found,) = (each for each in resources if each["name"] == name)
    return found


def _of_service(route: Json, mode: str) -> Json:
    action = {**route["route"], "cluster": mode, "prefix_rewrite": route["match"]["prefix"]}
    return {"match": {"prefix": f"/{mode}{route['match']['prefix']}"}, "route": action}


def _of_file(files: Path, path: Path) -> Json:
    address = path.relative_to(files).as_posix()
    headers = {
        "content-type": TYPES[path.suffix],
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return {
        "match": {"path": "/" if address == "index.html" else f"/{address}"},
        "direct_response": {"status": 200, "body": {"filename": os.fspath(path.resolve())}},
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ],
    }


def _cluster(cluster: Json, mode: str, address: str) -> Json:
    host, _, port = address.rpartition(":")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    assignment = {"cluster_name": mode, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    return {**cluster, "name": mode, "load_assignment": assignment}


if __name__ == "__main__":
    sys.exit(main())
