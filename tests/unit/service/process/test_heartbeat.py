"""The heartbeat: late answers are a sign of life, none at all is silence."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve_service.process.heartbeat import Pulse, heartbeat
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

SILENCE_SECONDS = 3.0  # six calls
LATE = 2


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Answers a call when a number of others have begun after it.

    Attributes:
        lateness: how many; None: it never answers.
    """

    def __init__(self) -> None:
        self.lateness: int | None = LATE
        self.begun = 0
        self.changed = threading.Condition()

    def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802  # gRPC calls it so
        with self.changed:
            self.begun += 1
            number = self.begun
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: not context.is_active() or (self.lateness is not None and self.begun >= number + self.lateness),
                2 * SILENCE_SECONDS,
            )
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
def health(tmp_path: Path) -> Iterator[Health]:
    server, health = grpc.server(ThreadPoolExecutor(32)), Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"unix:{tmp_path}/socket")
    server.start()
    yield health
    server.stop(None).wait()


def test_a_process_that_answers_late_is_alive(health: Health, tmp_path: Path) -> None:
    """One that has little of a processor is not replaced: the next one would be slower still.

    Before, a call that took a sixth of the time was given up.
    """
    is_silent = threading.Event()
    with heartbeat(tmp_path / "socket", SILENCE_SECONDS, is_silent.set), health.changed:
        assert health.changed.wait_for(lambda: health.begun > 10 or is_silent.is_set(), HANG_SECONDS)
    assert not is_silent.is_set()


def test_a_process_that_answers_no_more_is_silent(health: Health, tmp_path: Path) -> None:
    is_silent = threading.Event()
    with heartbeat(tmp_path / "socket", SILENCE_SECONDS, is_silent.set):
        with health.changed:
            assert health.changed.wait_for(lambda: health.begun > LATE, HANG_SECONDS)
            health.lateness = None
        assert is_silent.wait(HANG_SECONDS)


def test_a_process_that_does_not_listen_is_silent(tmp_path: Path) -> None:
    is_silent = threading.Event()
    with heartbeat(tmp_path / "socket", 0.6, is_silent.set):
        assert is_silent.wait(HANG_SECONDS)


def test_the_pulse_is_lost_before_the_process_is_given_up_and_comes_back(health: Health, tmp_path: Path) -> None:
    """What /livez says: an orchestrator may act before the process itself does."""
    health.lateness, is_silent, pulse = None, threading.Event(), Pulse()
    with heartbeat(tmp_path / "socket", SILENCE_SECONDS, is_silent.set, pulse):
        assert pulse.is_felt
        wait_until(lambda: not pulse.is_felt)
        assert not is_silent.is_set()
        with health.changed:
            health.lateness = 0
            health.changed.notify_all()
        wait_until(lambda: pulse.is_felt)
        assert not is_silent.is_set()
