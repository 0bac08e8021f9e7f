"""ReadyZeros: what makes encryptions of zero before replies need them, while nothing is computed.

To make one takes SEAL 0.8 to 2 ms, and three quarters of what hides a reply. SEAL holds the GIL
meanwhile, so that a call that arrives just then waits. Zeros are therefore made one at a time, and
only while no item is computed or waits, nor was a moment ago: then the last reply is on its way.
Under load none are made, and replies take new ones. The noise of a reply is drawn when it is used.

A key has zeros from its second use on, for as long as it is in use, and they end with it:
`zero_encryptor` says why, and how each is used once. A fork has none of its parent's. A snapshot of
the process that is restored twice has the same zeros twice, and no check in the process can tell:
where that may happen there must be none.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue

from sealserve_service.engines.linear.zero_encryptor import MAX_AGE_SECONDS, ZeroEncryptor
from sealserve_service.telemetry.metrics import Telemetry

MAX_BYTES = 16 << 20
"""Of the ready zeros of a process."""

_TENANTS_SHARE = 4
# By then the reply of the last item is on its way, which takes the GIL several times.
_QUIET_SECONDS = 0.001
# After each zero. A call has the GIL several times until its turn begins. Without the pause the
# next zero would be made between two of them, and a call could wait for several zeros.
_PAUSE_SECONDS = 0.0005
_SHORTEST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.001, 0.01
_STOP_SECONDS = 1.0
_FAULT_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class ReadyZeros:
    """Makes ready zeros for the keys of a process that are in use.

    A tenant may have a quarter of the zeros and of their bytes. There are no more keys with zeros
    than there may be zeros: those that were used last.

    Args:
        max_count: of the zeros of the process, at least 1.
        max_bytes: of their memory.
        telemetry: the metrics; by default it has its own.
    """

    def __init__(self, max_count: int, max_bytes: int = MAX_BYTES, telemetry: Telemetry | None = None) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._tenant_count = max(1, max_count // _TENANTS_SHARE)
        self._tenant_bytes = max_bytes // _TENANTS_SHARE
        self._telemetry = telemetry or Telemetry()
        # A key may be deleted or evicted at any time, with its zeros: nothing here keeps it.
        self._new = SimpleQueue[tuple[weakref.ref[ZeroEncryptor], str]]()
        self._tenants = weakref.WeakKeyDictionary[ZeroEncryptor, str]()
        self._busy_look_seconds = _SHORTEST_LOOK_SECONDS

    def supply(self, tenant: str, encryptor: ZeroEncryptor) -> None:
        """Have zeros made for a key of a tenant, until it has not been used for a minute."""
        encryptor.is_supplied = True
        self._new.put((weakref.ref(encryptor), tenant))

    def keep(self, idle_seconds: Callable[[], float], stopping: threading.Event) -> None:
        """Make zeros until `stopping` is set.

        Args:
            idle_seconds: returns for how long no item has been computed and none has waited.
            stopping: is set once no more items come.
        """
        pause = 0.0
        while not stopping.wait(pause):
            try:
                if not self._tenants:
                    self._take_in(_STOP_SECONDS)
                pause = self.look(idle_seconds)
            except Exception:  # replies make their own
                _logger.exception("for %g s no encryptions of zero are made ready", _FAULT_SECONDS)
                pause = _FAULT_SECONDS

    def look(self, idle_seconds: Callable[[], float]) -> float:
        """Make one zero, if a key wants one and no item is near; return when to look again.

        Raises:
            SealError, RandomnessError: only a fault of this process can raise one.
        """
        self._take_in()
        encryptor = self._next()
        if encryptor is None:
            return _LONGEST_LOOK_SECONDS
        idle = idle_seconds()
        if idle >= _QUIET_SECONDS:
            encryptor.make_ready()
            self._busy_look_seconds = _SHORTEST_LOOK_SECONDS
            return _PAUSE_SECONDS
        if idle > 0:
            return _QUIET_SECONDS - idle
        self._busy_look_seconds = min(2 * self._busy_look_seconds, _LONGEST_LOOK_SECONDS)
        return self._busy_look_seconds

    def _take_in(self, timeout_seconds: float = 0.0) -> None:
        """Take in the keys that are to be supplied; wait for one first if there is a timeout."""
        with contextlib.suppress(Empty):
            while True:
                reference, tenant = self._new.get(timeout=timeout_seconds)
                if (encryptor := reference()) is not None:
                    self._tenants[encryptor] = tenant
                timeout_seconds = 0.0

    def _next(self) -> ZeroEncryptor | None:
        """Return the key with the fewest zeros of those that may have one more."""
        in_use = self._in_use()
        counts, byte_counts = Counter[str](), Counter[str]()
        for encryptor, tenant in in_use:
            counts[tenant] += len(encryptor.ready)
            byte_counts[tenant] += len(encryptor.ready) * encryptor.zero_bytes
        count, byte_count = counts.total(), byte_counts.total()
        self._telemetry.ready_zero_bytes.set(byte_count)
        wanting = [
            encryptor
            for encryptor, tenant in in_use
            if counts[tenant] < self._tenant_count
            and byte_counts[tenant] + encryptor.zero_bytes <= self._tenant_bytes
            and count < self._max_count
            and byte_count + encryptor.zero_bytes <= self._max_bytes
        ]
        return min(wanting, key=lambda encryptor: len(encryptor.ready), default=None)

    def _in_use(self) -> list[tuple[ZeroEncryptor, str]]:
        """Return the keys in use, those that were used last first; drop zeros that are too old."""
        now, in_use, key_counts = time.monotonic(), list[tuple[ZeroEncryptor, str]](), Counter[str]()
        for encryptor, tenant in sorted(self._tenants.items(), key=lambda key: key[0].last_use, reverse=True):
            is_recent = now - encryptor.last_use < MAX_AGE_SECONDS
            if is_recent and key_counts[tenant] < self._tenant_count and len(in_use) < self._max_count:
                key_counts[tenant] += 1
                in_use.append((encryptor, tenant))
                encryptor.drop_old(now)
            else:
                del self._tenants[encryptor]
                encryptor.is_supplied = False
                encryptor.ready.clear()
        return in_use
