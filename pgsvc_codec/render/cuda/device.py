"""What exists on CUDA only: the current device, streams, marks in them, graphs, pinned memory.

Tensors in host memory take the plain way: work is done when it is asked for, and there is nothing to wait for.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock

import torch

# What multiplies and adds is fused, but where a launch asks otherwise: some Tritons warn that others do not.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

# A kernel's first launch compiles and loads it, and Triton lets other threads launch it before that is done; its
# interpreter keeps where it is in a launch for the whole process.
_launching = RLock()


@contextmanager
def use(device: torch.device) -> Iterator[None]:
    """While it lasts, kernels are launched on this device: Triton's are for the thread's current one.

    One thread at a time launches kernels, so nobody should wait for a device meanwhile.
    """
    with _launching, _current(device):
        yield


def _current(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait for all work on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What repeats `work` on the current stream, as one graph: its launches cost next to nothing then.

    The work must have been done at least once before, so that its kernels are compiled; it is not done here.  It reads
    and writes the same tensors every time, waits for nothing and reads nothing back.  On the CPU it is the work itself.
    Other threads may use the device meanwhile.
    """
    if device.type != "cuda":
        return work
    graph = torch.cuda.CUDAGraph()
    # Streams go round, and whatever goes to one that captures becomes part of the graph: those of a high priority are
    # for this alone.  torch.cuda.graph would wait for the device, and give back all memory that is kept for others.
    stream = torch.cuda.Stream(device, priority=-1)
    with use(device), _uncollected(), torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()

    def replay() -> None:
        with _current(device):
            graph.replay()

    return replay


@contextmanager
def _uncollected() -> Iterator[None]:
    """While it lasts, garbage waits: to free what lies on a device may be more than a capture allows."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def host_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Host memory that a device copies to and from while other work goes on; uninitialised."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


class Mark:
    """A point in a stream's work."""

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self._event = event

    def wait(self) -> None:
        """Have the host wait until the work before it is done."""
        if self._event is not None:
            self._event.synchronize()

    @property
    def is_done(self) -> bool:
        """Whether the work before it is done."""
        return self._event is None or self._event.query()

    def hold(self, device: torch.device) -> None:
        """Have what the current stream of the device is given from now on wait for it."""
        if self._event is not None:
            torch.cuda.current_stream(device).wait_event(self._event)


def mark(device: torch.device) -> Mark:
    """The end of what the device's current stream has been given so far."""
    if device.type != "cuda":
        return Mark()
    with _current(device):
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
    return Mark(event)


class Stream:
    """A queue of work beside the others; ``with stream:`` makes it the current one."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._contexts: list[AbstractContextManager[object]] = []

    def __enter__(self) -> Stream:
        context = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        context.__enter__()
        self._contexts.append(context)
        return self

    def __exit__(self, *reason: object) -> None:
        self._contexts.pop().__exit__(None, None, None)
