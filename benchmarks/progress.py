"""How far a long step is, told to people."""

from __future__ import annotations

import sys
import time

_INTERVAL = 30.0  # seconds between lines at least


class Ticker:
    """Lines on stderr, so few that a log stays readable.

    Args:
        name: of the step.
        total: units of work, None where nobody knows.
    """

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._started = self._last = time.monotonic()

    def tick(self, done: int, note: str) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._last < _INTERVAL:
            return
        self._last = now
        left = ""
        if self._total:
            seconds = round((now - self._started) * (self._total - done) / done)
            left = f" of {self._total}, {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left at most"
        print(f"{self._name}: {done}{left}, {note}", file=sys.stderr, flush=True)
