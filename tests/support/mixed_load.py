"""Callers of all kinds at the same time, and what became of their calls."""

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import StaleConfigError
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

Array = NDArray[np.float64]

ROWS = np.random.default_rng(22).random((500, 4))
BEFORE = "before"


@dataclass
class MixedLoad:
    """Callers of rows, raw calls, batches and a live stream, each with a token of its own.

    A raw call is an item that is sent once: no retry of the SDK's hides what becomes of it.

    Attributes:
        address: of the service.
        versions: weights (scores, 4) of models whose scores are right.
        row_callers: how many callers of rows there are.
        phase: what is being done to the service.
        seconds: how long answers took, by kind of call and by phase. Of the stream: the time from
            one result to the next.
        found: how often a caller had scores of each version, by caller and by phase.
        stale: raw calls that were refused because the version of their item is not served.
        faults: what failed otherwise, or was wrong.
    """

    address: str
    versions: Sequence[Array]
    row_callers: int = 3
    phase: str = "start"
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    found: dict[tuple[str, str], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    stale: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)

    def count(self, kind: str) -> int:
        """How many calls of a kind are answered."""
        return sum(len(times) for (found, _), times in list(self.seconds.items()) if found == kind)

    def longest(self, kind: str, phase: str) -> float:
        """The longest time that an answer took; 0 if there is none."""
        return max(self.seconds.get((kind, phase), ()), default=0.0)

    def run(self, disrupt: Callable[[], None], row_count: int = 0) -> None:
        """Load the service until it has been disrupted, and so many rows are answered."""
        callers = {f"row {number}": self._rows for number in range(self.row_callers)}
        callers |= {"raw call": self._raw_calls, "batch": self._batches, "stream": self._stream}
        threads = [threading.Thread(target=self._guarded, args=each, daemon=True) for each in callers.items()]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: self.faults or len({kind for kind, _ in list(self.seconds)}) == 4)
            self.phase = BEFORE
            time.sleep(2.0)
            disrupt()
            wait_until(lambda: self.faults or self.count("row") >= row_count, 3 * HANG_SECONDS)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(HANG_SECONDS)
        assert not any(thread.is_alive() for thread in threads)

    def table(self) -> str:
        """How many answers there were, and the longest times."""
        return "\n".join(
            f"{phase:>20} {kind:>8} {len(times):5}, longest {1e3 * max(times):5.0f} ms"
            for (kind, phase), times in self.seconds.items()
        )

    def _guarded(self, caller: str, call: Callable[[str], None]) -> None:
        try:
            call(caller)
        except BaseException as error:
            self.faults[f"{caller}, {self.phase}: {error!r}"] += 1

    def _client(self, layout: str, token: str) -> Client:
        credentials = Credentials(token=token.replace(" ", "-"))
        return Client(self.address, layout=layout, credentials=credentials, timeout_seconds=HANG_SECONDS)

    def _note(self, kind: str, began: float, phase: str) -> None:
        self.seconds[kind, phase].append(time.monotonic() - began)

    def _check(self, caller: str, scores: Any, rows: Array, client: Client, phase: str) -> None:
        errors = [np.abs(scores - rows @ weights.T).max() for weights in self.versions]
        best = int(np.argmin(errors))
        self.found[caller, phase][best] += 1
        if errors[best] > 2 * max(offer.score_error_bound for offer in client.model.offers):
            self.faults[f"{caller}, {phase}: wrong by {errors[best]:g}"] += 1

    def _rows(self, caller: str) -> None:
        with self._client("row", caller) as client:
            for index in itertools.cycle(range(len(ROWS))):
                if self._ended.wait(0.02):
                    return
                rows, began, phase = ROWS[index : index + 1], time.monotonic(), self.phase
                scores = client.predict(rows)
                self._note("row", began, phase)
                self._check(caller, scores, rows, client, phase)

    def _raw_calls(self, caller: str) -> None:
        with self._client("row", caller) as client:
            client.register_key()
            item = client.encrypt(ROWS[:1], keep=True)
            while not self._ended.wait(0.03):
                began, phase = time.monotonic(), self.phase
                try:
                    reply = client.send(item)
                except StaleConfigError:
                    self.stale[phase] += 1
                    client.predict(ROWS[:1])  # which brings the new description
                    item = client.encrypt(ROWS[:1], keep=True)
                    continue
                self._note(caller, began, phase)
                self._check(caller, client.decrypt(reply).scores, ROWS[:1], client, phase)

    def _batches(self, caller: str) -> None:
        with self._client("column", caller) as client:
            while not self._ended.wait(1.0):
                began, phase = time.monotonic(), self.phase
                scores = client.predict(ROWS)
                self._note(caller, began, phase)
                self._check(caller, scores, ROWS, client, phase)

    def _stream(self, caller: str) -> None:
        sent, seen = itertools.count(), Counter[int]()

        def rows() -> Iterator[Array]:
            while not self._ended.wait(0.05):
                yield ROWS[next(sent) % len(ROWS)]

        with self._client("row", caller) as client:
            began, phase = time.monotonic(), self.phase
            for index, scores in client.stream(rows()):
                self._note(caller, began, phase)
                began, phase = time.monotonic(), self.phase
                seen[index] += 1
                self._check(caller, scores, ROWS[index % len(ROWS)][None], client, phase)
        if dict(seen) != dict.fromkeys(range(next(sent)), 1):
            self.faults["rows of the stream are missing, or come twice"] += 1
