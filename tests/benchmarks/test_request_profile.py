"""The clock of `make bench-profile`: the time of each function, at each side."""

import threading
import time
from pathlib import Path

import pytest

from benchmarks import request_profile
from benchmarks.request_profile import CallClock, Node


def test_a_stack_is_its_sides_from_the_outermost_function_of_ours_on() -> None:
    assert request_profile.stack_of(("a.b", "sealserve.client.Client.predict", "grpc.call")) == (
        "client",
        "sealserve.client.Client.predict",
        "grpc.call",
    )
    assert request_profile.stack_of(("grpc.x", "sealserve_service.rpc.interceptor.C._request"))[0] == "server"
    assert (
        request_profile.stack_of(("grpc.y", "sealserve._streaming.threads.S._requests", "sealserve.he.f"))[0]
        == "client"
    )
    assert request_profile.stack_of(("sealserve_service.scoring.item.f", "sealserve.he.f"))[0] == "server"
    assert request_profile.stack_of(("grpc.x", "sealserves.f")) == ()


def test_time_is_of_the_function_that_spends_it_in_every_thread() -> None:
    clock = CallClock()

    def naps() -> None:
        time.sleep(0.05)

    with clock.running():
        naps()  # not counted
        with clock.counting():
            naps()
            thread = threading.Thread(target=naps)
            thread.start()
            thread.join()
    seconds: dict[str, float] = {}
    for root in clock._roots:
        for stack, own in root.stacks():
            if stack and own:
                seconds[stack[-1]] = seconds.get(stack[-1], 0.0) + own
    assert seconds["time.sleep"] >= 0.1, "in both threads"
    assert any(name.endswith("naps") for name in seconds), "which has seconds of its own"


def test_a_tree_yields_its_stacks() -> None:
    tree = Node(1.0, {"a": Node(2.0, {"b": Node(3.0)}), "c": Node(4.0)})
    assert dict(tree.stacks()) == {(): 1.0, ("a",): 2.0, ("a", "b"): 3.0, ("c",): 4.0}


def test_a_request_is_taken_apart(tmp_path: Path) -> None:
    result, stacks = request_profile.measure(requests=3, features=16, classes=2)
    sides = {entry["side"] for entry in result["functions"]}
    assert sides == {"client", "server"}
    of_client = sum(seconds for stack, seconds in stacks.items() if stack[0] == "client")
    assert 0 < 1e3 * of_client / 3 <= result["request_ms"], "what the clock takes itself is nobody's"
    assert any(stack[-1] == "seal.encrypt_symmetric" for stack in stacks)
    assert any(stack[-1] == "seal.multiply_plain" for stack in stacks)
    request_profile.plot(stacks, result, tmp_path / "flame.png")
    assert (tmp_path / "flame.png").read_bytes().startswith(b"\x89PNG")
    assert "seal.encrypt_symmetric" in request_profile.table(result)
    assert request_profile.title(result) == "a request of one row, open weights"


def test_a_batch_is_taken_apart_whichever_thread_works_on_it() -> None:
    result, stacks = request_profile.measure(requests=1, features=16, classes=2, layout="column")
    assert result["rows"] == 2048
    worked = {(stack[0], name) for stack in stacks for name in stack}
    assert ("client", "seal.encrypt_symmetric") in worked
    assert ("server", "sealserve_service.engines.linear.column.ColumnEngine.multiply") in worked
    assert not any(stack[-1] == "_thread.lock.acquire" for stack in stacks), "which is no work"


@pytest.mark.parametrize("layout", ["row", "column"])
def test_private_weights_are_hidden(layout: str) -> None:
    _, stacks = request_profile.measure(requests=1, features=16, classes=2, weights="private", layout=layout)
    assert any(stack[0] == "server" and stack[-1] == "seal.encrypt_zero" for stack in stacks)
