"""Work that is done many times over the same buffers, captured as a graph where there is such a thing."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pgsvc_codec.render.cuda.device import capture


class Replay:
    """Something to do again and again.

    Args:
        work: reads and writes the same buffers each time, and waits for nothing.
        device: where.
    """

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        self._work = work
        self._device = device
        self._captured: Callable[[], None] | None = None

    def run(self, times: int) -> None:
        """Do it so many times."""
        if times and self._captured is None:
            self._work()  # kernels are compiled by that, before they are captured
            self._captured = capture(self._work, self._device)
            times -= 1
        for _ in range(times):
            assert self._captured is not None
            self._captured()

    def forget(self) -> None:
        """Buffers are others now: capture anew."""
        self._captured = None
