"""A page of the documentation as a program: its blocks of code, run one after the other.

A block's language says what becomes of it:

    python, csv or toml with title="NAME"   it is written into that file
    python                                  it is executed, and its names stay for the next blocks
    console                                 each `$ COMMAND` is run, and what it prints compared to
                                            the lines below it, in which `...` is any text
    sh, toml, yaml                          it is for another machine, and is not run
    go, java, js                            tests/compatibility/test_language_examples.py runs it
    typescript                              an example of the SDK, which its own tests run

A command that ends with & is a service: the lines below it are what it prints when it is ready.
"""

import doctest
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.serving import HANG_SECONDS

LANGUAGES = {"python", "console", "csv", "toml", "yaml", "sh", "go", "java", "js", "typescript"}
_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
PORTS = ("50051", "9464", "8000")
"""Of the service, of its metrics and of the agent's REST, wherever a page names them."""
_PROGRAM = """\
#!/bin/sh
case "$1 $*" in
    *--address*) ;;
    predict*|models*|health*|bench*|keys*) set -- "$@" --address 127.0.0.1:{port} ;;
esac
exec {python} -m sealserve "$@"
"""


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    language: str
    title: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """The blocks of code of a page, in their order."""
    found = [
        Block(match[1], match[2] or "", match[3], page.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(page)
    ]
    assert len(re.findall("^```", page, re.MULTILINE)) == 2 * len(found), "every fence belongs to a block"
    return found


class PageRun:
    """Runs blocks in a folder, which must be the working directory.

    Args:
        folder: where files go.
        names: what Python blocks know from the start.
        ports: what takes the places of PORTS. Commands without --address use the first, too.
    """

    def __init__(self, folder: Path, names: dict[str, Any], ports: Sequence[int]) -> None:
        self.names = names
        self._folder = folder
        self._ports = dict(zip(PORTS, map(str, ports), strict=True))
        self._services = ExitStack()
        programs = folder / ".programs"
        programs.mkdir()
        for name, text in (
            ("sealserve", _PROGRAM.format(port=ports[0], python=sys.executable)),
            ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self._environment = {**os.environ, "SEALSERVE_ADDRESS": f"127.0.0.1:{ports[0]}"}
        self._environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def close(self) -> None:
        """End the services."""
        self._services.close()

    def run(self, blocks: Iterable[Block]) -> None:
        """Run blocks.

        Raises:
            AssertionError: a command fails, or prints something else than the page says.
            What a Python block raises.
        """
        for block in blocks:
            text = self._with_ports(block.text)
            if block.title:
                (self._folder / block.title).write_text(text)
            elif block.language == "python":
                exec(compile("\n" * block.line + text, "<page>", "exec"), self.names)  # noqa: S102  # our own page
            elif block.language == "console":
                for command, output in _commands(text):
                    (self._start if command.endswith("&") else self._call)(command, output)

    def _with_ports(self, text: str) -> str:
        for name, port in self._ports.items():
            text = text.replace(name, port)
        return text

    def _call(self, command: str, expected: str) -> None:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],  # noqa: S607
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * HANG_SECONDS,
            check=False,
        )
        fails = expected.startswith("sealserve: error: ")
        assert done.returncode == int(fails), f"{command}\n{done.stdout}"
        _compare(command, expected, done.stdout)

    def _start(self, command: str, expected: str) -> None:
        log = self._folder / f"{len(list(self._folder.glob('*.log')))}.log"
        with log.open("w") as stderr:
            service = subprocess.Popen(
                ["bash", "-c", f"exec {command.removesuffix('&')}"],  # noqa: S607
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._services.enter_context(service)
        self._services.callback(service.terminate)
        assert service.stdout
        printed = [service.stdout.readline() for _ in expected.splitlines()]
        assert all(printed), log.read_text()
        _compare(command, expected, "".join(printed))


@contextmanager
def page_run(folder: Path, **names: Any) -> Iterator[PageRun]:
    """Give a PageRun in a folder, with free ports; end its services at the end."""
    with ExitStack() as taken:
        sockets = [taken.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    run = PageRun(folder, names, ports)
    try:
        yield run
    finally:
        run.close()


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console and the output that a page shows of each."""
    found = list(_COMMAND.finditer(text))
    assert "".join(match[0] for match in found) == text, "a console begins with a command"
    yield from ((match[1], match[2]) for match in found)


def _compare(command: str, expected: str, printed: str) -> None:
    if not expected:
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(expected, printed, flags), (
        f"$ {command}\n-- the page says\n{expected}\n-- it prints\n{printed}"
    )
