"""Replicas of a service on hosts of loopback, behind one name and the Envoy of deploy/envoy."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support import envoy
from tests.support.azurite import free_port
from tests.support.name_server import NAME, NameServer, name_server
from tests.support.programs import Program, serve
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until


class Fleet:
    """Replicas that can be started, stopped and broken, each on a host of its own.

    Attributes:
        names: the name server, whose name has the addresses that Envoy sends calls to.
        port: of all replicas.
        proxy: the Envoy that takes calls.
        edit: changes the configuration of the next Envoy.
    """

    def __init__(self, names: NameServer, options: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.names = names
        self.port = free_port()
        self.edit: Callable[[Any], None] | None = None
        self._options = options
        self._environment = environment
        self._folder = folder
        self._replicas: dict[str, tuple[contextlib.ExitStack, Program]] = {}
        self._proxies: list[tuple[contextlib.ExitStack, envoy.Envoy]] = []

    @property
    def proxy(self) -> envoy.Envoy:
        return self._proxies[-1][1]

    def program(self, host: str) -> Program:
        return self._replicas[host][1]

    def start(self, host: str, *options: str) -> None:
        """Start a replica, by default with the fleet's options; returns when it listens."""
        stack = contextlib.ExitStack()
        log = self._folder / f"{host}.log"
        program = serve(*(options or self._options), address=f"{host}:{self.port}", log=log, **self._environment)
        self._replicas[host] = stack, stack.enter_context(program)

    def stop(self, host: str) -> None:
        """Stop a replica as an orchestrator does; returns when it has ended."""
        stack, program = self._replicas.pop(host)
        with stack:
            program.process.send_signal(signal.SIGTERM)
            assert program.process.wait(HANG_SECONDS) == 0, program.said

    def kill(self, host: str) -> None:
        """Kill a replica: its connections break off."""
        self._replicas.pop(host)[0].close()

    @contextlib.contextmanager
    def frozen(self, host: str) -> Iterator[None]:
        """Freeze a replica: it keeps its connections, and answers nothing."""
        process = psutil.Process(self.program(host).process.pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def host_of_the_stream(self) -> str:
        """The replica that the only live stream is on: it is never without a call."""
        least = Counter(self.proxy.by_replica("rq_active"))
        for _ in range(20):
            time.sleep(0.02)
            # Between two streams there is none: keep what was there before.
            least = least & Counter(self.proxy.by_replica("rq_active")) or least
        return max(self._replicas, key=lambda host: least[host])

    def wait_for(self, count: int) -> None:
        """Wait until so many replicas get calls."""
        wait_until(lambda: self.proxy.healthy_count() == count)

    def start_proxy(self, port: int = 0) -> None:
        """Start an Envoy, which takes calls on a port; an earlier one goes on beside it."""
        stack = contextlib.ExitStack()
        proxy = envoy.running_proxy(
            f"{NAME}:{self.port}", self._folder, port=port, name_server_port=self.names.port, edit=self.edit
        )
        self._proxies.append((stack, stack.enter_context(proxy)))

    def replace_proxy(self, seconds: float, *, is_asked: bool = True) -> None:
        """Start another Envoy on the port, and end the present one.

        Args:
            seconds: how long clients have to leave.
            is_asked: whether they are sent away. Otherwise their connections end by age only.
        """
        stack, old = self._proxies[-1]
        self.start_proxy(int(old.address.rpartition(":")[2]))
        old.accept_no_more()
        if is_asked:
            old.send_clients_away()
        time.sleep(seconds)
        stack.close()

    def close(self) -> None:
        """End everything."""
        for stack, _ in (*self._proxies, *self._replicas.values()):
            stack.close()


@contextlib.contextmanager
def running_fleet(
    hosts: Sequence[str],
    folder: Path,
    *options: str,
    edit: Callable[[Any], None] | None = None,
    **environment: str,
) -> Iterator[Fleet]:
    """Run a replica on each host, and Envoy before them, with an edited configuration."""
    envoy.require()
    with name_server(*hosts) as names, contextlib.closing(Fleet(names, options, environment, folder)) as fleet:
        for host in hosts:
            fleet.start(host)
        fleet.edit = edit
        fleet.start_proxy()
        fleet.wait_for(len(hosts))
        yield fleet
