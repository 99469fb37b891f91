"""Wrong passwords make the next try wait: nobody gets to try many."""

import threading
import time
from collections.abc import Callable

FREE, LONGEST_S = 5, 60.0
"""Wrong ones in a row that cost nothing; and what a wait grows to, doubling. A person who is shut out is so for a minute."""
KEPT = 1000
"""Names that are remembered."""


class Throttle:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failed: dict[str, tuple[int, float]] = {}

    def wait_s(self, name: str) -> float:
        """Before a password of this name is looked at again."""
        with self._lock:
            times, last = self._failed.get(name, (0, 0.0))
            pause = min(2.0 ** (times - FREE), LONGEST_S) if times >= FREE else 0.0
            return max(last + pause - self._clock(), 0.0)

    def failed(self, name: str) -> None:
        with self._lock:
            times, _ = self._failed.pop(name, (0, 0.0))
            if len(self._failed) >= KEPT:
                # The one that failed longest ago: each is put last when it fails.
                del self._failed[next(iter(self._failed))]
            self._failed[name] = (times + 1, self._clock())

    def succeeded(self, name: str) -> None:
        with self._lock:
            self._failed.pop(name, None)
