"""Reloader: the thread that loads models again, on request or when their files change.

It also ends previous versions when their time is over.
"""

import threading

from sealserve_service.catalog.library import ModelLibrary

_LAST_LOAD_SECONDS = 2.0


class Reloader:
    """Has a library follow its files.

    Args:
        library: the models; only this thread calls it.
        interval_seconds: how often to look at the files; None for on request only.
    """

    def __init__(self, library: ModelLibrary, interval_seconds: float | None) -> None:
        self._library = library
        self._interval_seconds = interval_seconds
        self._wake = threading.Event()
        self._is_closed = False
        # A load that takes too long must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self._thread.start()

    def reload(self) -> None:
        """Have the library load what has changed, in the reloader's thread; return at once."""
        self._wake.set()

    def close(self) -> None:
        """Stop loading; wait at most _LAST_LOAD_SECONDS for a load that is under way."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(_LAST_LOAD_SECONDS)

    def _run(self) -> None:
        while True:
            waits = (self._interval_seconds, self._library.end_previous())
            if not self._wake.wait(min((seconds for seconds in waits if seconds is not None), default=None)):
                if self._interval_seconds is not None:
                    self._library.follow()
                continue
            self._wake.clear()
            if self._is_closed:
                return
            self._library.reload()
