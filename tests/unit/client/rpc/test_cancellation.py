"""Cancellation: what is under way ends, and what begins later does not begin."""

import threading

import pytest

from sealserve._rpc.cancellation import Cancellation, CancelledError
from sealserve.client import Client
from tests.support.digits import Digits
from tests.support.recording_service import Answer, Sent, accepted, described, recording_service
from tests.support.serving import HANG_SECONDS, served


def test_what_is_registered_ends_once_and_only_in_its_context() -> None:
    cancellation, ended = Cancellation(), list[str]()
    with cancellation.ending(lambda: ended.append("over")):
        pass
    with cancellation.ending(lambda: ended.append("open")):
        assert not cancellation.is_cancelled
        cancellation.cancel()
    assert ended == ["open"]
    with cancellation.ending(lambda: ended.append("late")):
        assert ended == ["open", "late"], "what begins after it ends at once"


@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize("count", [1, 30])
def test_calls_of_a_client_end_at_the_service(digits_model: Digits, layout: str, count: int) -> None:
    model = described(served("digits", digits_model.estimator, input_step=1 / 16).model, layout=layout)
    arrived, release = threading.Event(), threading.Event()
    ended = list[threading.Event]()

    def answer(sent: Sent) -> Answer:
        ended.append(sent.has_ended)
        arrived.set()
        release.wait(HANG_SECONDS)
        return accepted(model, sent)

    with recording_service(model, answer) as service, Client(service.address, timeout_seconds=HANG_SECONDS) as client:
        cancellation, failures = Cancellation(), list[BaseException]()

        def ask() -> None:
            try:
                client._run(client._session.scored(digits_model.X[:count], "raise"), HANG_SECONDS, cancellation)
            except CancelledError as error:
                failures.append(error)

        caller = threading.Thread(target=ask)
        caller.start()
        assert arrived.wait(HANG_SECONDS)
        cancellation.cancel()
        caller.join(HANG_SECONDS)
        assert len(failures) == 1
        assert ended[0].wait(HANG_SECONDS), "the service sees it"
        with pytest.raises(CancelledError):
            client._run(client._session.scored(digits_model.X[:1], "raise"), HANG_SECONDS, cancellation)
        release.set()
