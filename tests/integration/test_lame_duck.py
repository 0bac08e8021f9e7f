"""A service that is told to stop while balancers still send it calls, and what its probes say."""

import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve.errors import DrainingError
from tests.support.metrics import free_address
from tests.support.programs import serve
from tests.support.raw import Message, RawClient
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LAME_DUCK_SECONDS = 4.0
ROW = np.array([[1.0, 0.5]])


def status(metrics_address: str, path: str) -> int:
    """The status with which a probe is answered; 0 if nothing answers."""
    try:
        with urllib.request.urlopen(f"http://{metrics_address}{path}", timeout=HANG_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("processes", [1, 2])
def test_calls_are_served_after_sigterm_and_then_refused(tmp_path: Path, processes: int) -> None:
    np.savez(tmp_path / "line.npz", coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    metrics_address = free_address()
    with (
        serve(
            *("--model", f"line={tmp_path / 'line.npz'}", "--input-range", "0,1", "--processes", str(processes)),
            *("--lame-duck", str(LAME_DUCK_SECONDS), "--metrics-address", metrics_address),
        ) as program,
        RawClient(program.address) as raw,
        raw.conversation() as stream,
    ):
        wait_until(lambda: status(metrics_address, "/readyz") == 200)
        assert status(metrics_address, "/livez") == 200
        assert status(metrics_address, "/nothing") == 404
        whole = raw.item(1, ROW)
        stream.send(Message(item_id=1, header=whole.header))
        stream.send(raw.item(2, ROW))
        assert next(stream.answers)[0] == 2

        told = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(metrics_address, "/readyz") == 503)
        health = health_pb2_grpc.HealthStub(raw.channel)

        def health_status() -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS).status)

        wait_until(lambda: health_status() == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert time.monotonic() - told < LAME_DUCK_SECONDS, "it says so at once"
        assert raw.predict(raw.request(ROW)) == pytest.approx(0.5, abs=1e-2)
        stream.send(raw.item(3, ROW))
        assert next(stream.answers)[1] == pytest.approx(0.5, abs=1e-2)
        assert status(metrics_address, "/livez") == 200, "it must not be killed meanwhile"

        wait_until(lambda: is_refused(raw))
        assert time.monotonic() - told >= LAME_DUCK_SECONDS
        stream.send(Message(item_id=1, chunk=whole.chunk))
        assert next(stream.answers)[1] == pytest.approx(0.5, abs=1e-2)
        assert program.process.wait(HANG_SECONDS) == 0


def is_refused(raw: RawClient) -> bool:
    """Whether a row is refused, and as one that may be sent again."""
    try:
        raw.predict(raw.request(ROW))
    except DrainingError:
        return True
    return False
