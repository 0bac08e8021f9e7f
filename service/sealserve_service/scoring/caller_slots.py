"""The slots of a kind that callers share: waiting calls, open streams or uploads of keys.

A slot is held by a call that may bring nothing: gRPC starts a call when its headers arrive, and a
hostile caller sends nothing after them. Each caller therefore has a bound of its own, by default a
quarter of the slots, and waits become shorter while slots are scarce. Together they leave slots to
others: one caller cannot take all of them, and what several callers have taken is soon free again.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from sealserve.errors import QuotaExceededError
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota

WAITING_CALLS = "waiting_calls"
OPEN_STREAMS = "open_streams"
CONCURRENT_UPLOADS = "concurrent_uploads"
# What a refusal names when all callers together have all slots of a kind.
_WHEN_FULL = {
    WAITING_CALLS: "concurrent_calls",
    OPEN_STREAMS: "server_streams",
    CONCURRENT_UPLOADS: "server_uploads",
}
SLOT_KINDS = frozenset({WAITING_CALLS, OPEN_STREAMS, CONCURRENT_UPLOADS, "server_streams", "server_uploads"})
"""What a refusal may name because of slots; "concurrent_calls" also has other reasons."""
RETRY_SECONDS = 1.0
_CALLERS_SHARE = 4
# Of a client on a slow link, even when there is no free slot.
_LEAST_WAIT_SECONDS = 2.0


class CallerSlots:
    """The slots of one kind.

    Args:
        kind: its name, which is also that of the bound in a quota.
        slot_count: of all callers together.
        quota: of tenants that have no such bound of their own.
    """

    def __init__(self, kind: str, slot_count: int, quota: Quota) -> None:
        self._kind = kind
        self._kind_when_full = _WHEN_FULL[kind]
        self.slot_count = slot_count
        self._bound = getattr(quota, kind) or max(1, slot_count // _CALLERS_SHARE)
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self.held_count = 0

    @contextlib.contextmanager
    def hold(self, caller: Caller, other_count: int = 0) -> Iterator[None]:
        """Hold a slot on a caller's account while the context lasts.

        Args:
            caller: has the account.
            other_count: of slots that are taken for something else.

        Raises:
            QuotaExceededError: the caller has as many as it may, or no slot is free.
        """
        quota = caller.tenant.quota
        bound = (quota and getattr(quota, self._kind)) or self._bound
        with self._lock:
            if self._held[caller.name] >= max(1, bound):
                raise QuotaExceededError(self._kind, RETRY_SECONDS)
            if self.held_count + other_count >= self.slot_count:
                raise QuotaExceededError(self._kind_when_full, RETRY_SECONDS)
            self._held[caller.name] += 1
            self.held_count += 1
        try:
            yield
        finally:
            with self._lock:
                self.held_count -= 1
                self._held[caller.name] -= 1
                if not self._held[caller.name]:
                    del self._held[caller.name]


def shortened(seconds: float, held_count: int, slot_count: int) -> float:
    """Return how long the holder of a slot may wait for what usually may take so many seconds.

    That is all of the time while at most half of the slots are held. From there on it falls with
    the square of the free share.
    """
    free_share = (slot_count - held_count + 1) / slot_count  # with the holder's own slot
    return max(min(seconds, _LEAST_WAIT_SECONDS), seconds * min(1.0, 2 * free_share) ** 2)
