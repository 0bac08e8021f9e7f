"""The walk of one private row: the functions that one warm prediction calls, in order, at each end.

The program serves scikit-learn's digits with private weights on a real socket of this process. A
client that has predicted twice before predicts one more row, and every call of a Python function is
recorded. The walk of the client is what the caller's thread does in files of `sealserve`. The walk
of the service is what all other threads do in files of `sealserve_service` and `sealserve`. Its
second part is what the service does after gRPC has begun to serialize the reply: accounts and logs,
for which the client does not wait.

What is counted:

- A call is the first entry of a frame. A generator, a coroutine and a `with` block's context
  manager are resumed, and are still one call.
- Lambdas, generator expressions, properties and `__init__` are calls. List, dict and set
  comprehensions are not: they are part of their function, as Python 3.12 compiles them.
- Generated code (`sealserve.v1`), libraries and functions in C are left out.
- A change of file is a call whose function is in another file than that of the call before it.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import sealserve
import sealserve_service
from benchmarks.report import render
from sealserve.client import Client
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.digits import digits
from tests.support.serving import registered_keys, running_server, served

SDK = Path(sealserve.__file__).parent
SERVICE = Path(sealserve_service.__file__).parent
COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>"}
HIDING_BITS = 40
TITLES = {
    "client": "client",
    "service": "service, until it has the reply",
    "after_reply": "service, after the reply",
}
QUIET_SECONDS = 0.2  # the service's accounts of a call are written within a few milliseconds


@dataclass(frozen=True)
class Call:
    """A call of a function.

    Attributes:
        file: the path of the function's file, from its package's folder on.
        function: the qualified name of the function.
        depth: the number of counted functions that were running in this thread.
    """

    file: str
    function: str
    depth: int


@dataclass
class Walk:
    """The calls of one prediction, in order."""

    client: list[Call] = field(default_factory=list)
    service: list[Call] = field(default_factory=list)
    after_reply: list[Call] = field(default_factory=list)


def changes(calls: list[Call]) -> int:
    """Count the calls whose function is in another file than that of the call before."""
    return sum(before.file != after.file for before, after in pairwise(calls))


def counts(walk: Walk) -> dict[str, dict[str, int]]:
    """Count the calls and the changes of file of each part of a walk."""
    return {name: {"calls": len(calls), "changes": changes(calls)} for name, calls in vars(walk).items()}


class Recorder:
    """The receiver of the events of all threads, which it records during a prediction only.

    `threading.setprofile(recorder.observe)` must come before the service's threads are started.
    """

    def __init__(self) -> None:
        self._walk: Walk | None = None
        self._caller = 0
        self._replied = False
        self._entered = set[FrameType]()  # holds the frames, so that none takes the place of another

    def record(self, predict: Callable[[], Any]) -> Walk:
        """Record the walk of a prediction that this thread asks for."""
        self._walk = walk = Walk()
        self._caller = threading.get_ident()
        self._replied = False
        sys.setprofile(self.observe)
        try:
            predict()
        finally:
            sys.setprofile(None)
        self._wait_until_quiet(walk)
        self._walk = None
        self._entered.clear()
        return walk

    def observe(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event from the interpreter: see `sys.setprofile`."""
        walk = self._walk
        if walk is None:
            return
        in_client = threading.get_ident() == self._caller
        if event == "c_call":
            self._replied |= not in_client and argument.__name__ == "SerializeToString"
        elif event == "call" and frame not in self._entered and _is_counted(frame):
            self._entered.add(frame)
            call = Call(_file(frame), frame.f_code.co_qualname, _depth(frame))
            calls = walk.client if in_client else walk.after_reply if self._replied else walk.service
            calls.append(call)

    @staticmethod
    def _wait_until_quiet(walk: Walk) -> None:
        known = -1
        while known != len(walk.service) + len(walk.after_reply):
            known = len(walk.service) + len(walk.after_reply)
            time.sleep(QUIET_SECONDS)


def _is_counted(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    ours = path.is_relative_to(SDK) or path.is_relative_to(SERVICE)
    return ours and not path.is_relative_to(SDK / "v1") and frame.f_code.co_name not in COMPREHENSIONS


def _file(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    package = SDK if path.is_relative_to(SDK) else SERVICE
    return path.relative_to(package.parent).as_posix()


def _depth(frame: FrameType) -> int:
    depth, caller = 0, frame.f_back
    while caller is not None:
        depth += _is_counted(caller)
        caller = caller.f_back
    return depth


def measure() -> Walk:
    """Trace one row's prediction of a model with private weights.

    The client has predicted twice before.
    """
    estimator, X = digits()
    keys = registered_keys()
    registry = ModelRegistry([served("digits", estimator, input_step=1 / 16, keys=keys, hiding_bits=HIDING_BITS)])
    recorder = Recorder()
    threading.setprofile(recorder.observe)
    try:
        with running_server(registry, keys=keys) as address, Client(address) as client:
            client.predict(X[:1])
            client.predict(X[1:2])
            return recorder.record(lambda: client.predict(X[2:3]))
    finally:
        threading.setprofile(None)


def shown(walk: Walk) -> str:
    """Render a walk as indented lists, a line a call."""
    lines = []
    for name, calls in vars(walk).items():
        lines += [f"{TITLES[name]}:", *(f"{'  ' * (call.depth + 1)}{call.file} {call.function}" for call in calls), ""]
    return "\n".join(lines)


def main() -> None:
    """Trace a prediction, and print what was counted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.walk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the counts as JSON instead of as a table")
    output.add_argument("--show", action="store_true", help="print every call before the table, as an indented list")
    arguments = parser.parse_args()
    walk = measure()
    found = counts(walk)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    if arguments.show:
        print(shown(walk))
    rows = [(TITLES[name], str(count["calls"]), str(count["changes"])) for name, count in found.items()]
    print(render([("one private row", "calls", "changes of file"), *rows]))


if __name__ == "__main__":
    main()
