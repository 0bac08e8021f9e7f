"""A client's connections: opened on use, replaced when broken, closed when unused."""

import pytest

from sealserve._rpc.connections import Connections


class Connection:
    """One that knows whether it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        """Close it."""
        assert not self.is_closed, "once"
        self.is_closed = True


@pytest.fixture
def connections() -> Connections[Connection]:
    return Connections(Connection, Connection.close)


def test_a_place_has_one_connection(connections: Connections[Connection]) -> None:
    with connections.use(0) as one, connections.use(0) as same, connections.use(1) as other:
        assert one is same
        assert one is not other
    with connections.use(0) as again:
        assert again is one
        assert not again.is_closed


def test_one_that_is_replaced_is_closed_after_its_last_use(connections: Connections[Connection]) -> None:
    with connections.use(0) as old:
        with connections.use(0):
            connections.replace(old)
        closed_early = old.is_closed
        with connections.use(0) as new:
            assert new is not old
            connections.replace(old)  # by somebody else, who was late
        with connections.use(0) as same:
            assert same is new
    assert (closed_early, old.is_closed, new.is_closed) == (False, True, False)


def test_closing_closes_all_that_are_in_use_or_not(connections: Connections[Connection]) -> None:
    with connections.use(0) as unused:
        pass
    with connections.use(1) as used, connections.use(2) as replaced:
        connections.replace(replaced)
        connections.close()
        assert unused.is_closed
        assert used.is_closed
        assert replaced.is_closed
