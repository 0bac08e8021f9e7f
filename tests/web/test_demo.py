"""The demo page of the TypeScript SDK: as it is served, in Chromium."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from sealserve_service.catalog.registry import ModelRegistry
from tests.support import chromium, envoy, node
from tests.support.azurite import free_port
from tests.support.serving import HANG_SECONDS, ROOT, running_server, served

DEMO = node.SDK / "demo"
SIDE = 8
INK = 8
"""From which a pixel of 0..16 is drawn."""
DIGITS_A_CLASS = 2

Pixel: TypeAlias = tuple[int, int]
"""Row and column."""


def serve(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(DEMO / "serve.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)


def test_the_command_and_its_help() -> None:
    make = shutil.which("make")
    assert make
    command = [make, "--no-print-directory", "--dry-run", "demo-web", "WEB=--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    program, option = done.stdout.split()[-2:]
    assert (ROOT / program, option) == (DEMO / "serve.py", "--help")
    shown = serve("--help")
    assert shown.returncode == 0
    assert {"--port", "--envoy", "--files"} <= set(re.findall(r"--\w+", shown.stdout))


def test_what_is_missing_or_in_use_is_said_at_once(tmp_path: Path) -> None:
    for name in ("envoy", "index.html"):
        told = serve("--envoy", str(tmp_path / "envoy"), "--files", str(tmp_path))
        assert (told.returncode, f"{tmp_path / name} is missing" in told.stderr) == (2, True)
        (tmp_path / name).touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = serve("--envoy", str(tmp_path / "envoy"), "--files", str(tmp_path), "--port", port)
    assert (told.returncode, f"port {port} is in use" in told.stderr) == (2, True)


@contextmanager
def demo(folder: Path) -> Iterator[dict[str, Any]]:
    """Build and serve the page; gives what its tests are told of it."""
    files, port = folder / "page", free_port()
    vite = "node_modules/vite/bin/vite.js"
    node.run([vite, "build", "--config", "demo/vite.config.ts", "--outDir", str(files), "--logLevel", "error", "demo"])
    command = [sys.executable, str(DEMO / "serve.py"), "--port", str(port), "--files", str(files)]
    log = folder / "demo.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            assert line.startswith(f"open http://127.0.0.1:{port}/"), log.read_text()
            found = re.search(r"private weights, process (\d+)", log.read_text())
            assert found
            yield {"address": f"127.0.0.1:{port}", "files": str(files), "privateProcess": int(found[1])}
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)


def drawn_digits() -> list[dict[str, Any]]:
    """Digits that the model has not seen, as lines of a pen, from each class as many."""
    X, y = load_digits(return_X_y=True)
    _, unseen, _, labels = train_test_split(X, y, test_size=0.25, random_state=0)
    chosen = [row for digit in range(10) for row in np.flatnonzero(labels == digit)[:DIGITS_A_CLASS]]
    return [{"label": int(labels[row]), "strokes": strokes_of(unseen[row].reshape(SIDE, SIDE))} for row in chosen]


def strokes_of(image: NDArray[np.float64]) -> list[list[tuple[float, float]]]:
    """Return lines from neighbour to neighbour through the dark pixels of an image (8, 8).

    Of a straight line there are the ends.
    """
    ink = {(int(row), int(column)) for row, column in np.argwhere(image >= INK)}
    edges = {frozenset((pixel, other)) for pixel in ink for other in neighbours(pixel, ink)}
    strokes = []
    while edges:
        ends = sorted({pixel for edge in edges for pixel in edge}, key=lambda p: (sum(p in e for e in edges), p))
        line = [ends[0]]
        while following := sorted(next(iter(edge - {line[-1]})) for edge in edges if line[-1] in edge):
            edges.remove(frozenset((line[-1], following[0])))
            line.append(following[0])
        bends = [b for a, b, c in zip(line, line[1:], line[2:], strict=False) if not is_straight(a, b, c)]
        strokes.append([((x + 0.5) / SIDE, (y + 0.5) / SIDE) for y, x in (line[0], *bends, line[-1])])
    return strokes


def is_straight(first: Pixel, middle: Pixel, last: Pixel) -> bool:
    return all(2 * b == a + c for a, b, c in zip(first, middle, last, strict=True))


def neighbours(pixel: Pixel, ink: set[Pixel]) -> Iterator[Pixel]:
    """Yield dark pixels beside one, and those across its corners where no other path leads to."""
    row, column = pixel
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = (row + down, column + right)
        around = {(row + down, column), (row, column + right)} - {pixel, other}
        if other in ink and not (down and right and around & ink):
            yield other


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node.require()
    envoy.require()
    monkeypatch.setenv("SEALSERVE_CHROMIUM", chromium.require())
    flowers = served("digits", LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), (0.0, 8.0))
    with (
        demo(tmp_path) as page,
        running_server(ModelRegistry([flowers])) as service,
        envoy.running_envoy(service, tmp_path) as other,
    ):
        content = page | {"digits": drawn_digits(), "otherService": other}
        assert "fail 0" in node.run_live_tests("page", tmp_path, content, kind="demo")
