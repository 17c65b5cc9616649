"""Processes of this machine that code GOPs side by side, with a GPU or a share of the cores each, as an executor.

Workers are spawned, for neither CUDA nor threads survive a fork; a program that starts some must be importable, as
``multiprocessing`` says.  They end with their parent, whatever ends it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from threading import Thread

_device: str | None = None  # of this process, if it is a worker that was given a GPU


def own_device() -> str | None:
    """The device that this worker has been given in place of what its tasks name; None where they are right."""
    return _device


@contextmanager
def local_workers(count: int, gpus: Sequence[int] = ()) -> Iterator[Executor]:
    """Processes for tasks, as long as the context lasts; whatever they are doing is ended by an error in it.

    Args:
        count: of processes, 1 and more.
        gpus: numbers of CUDA devices, dealt out in turn; none = all tasks run where they say.
    """
    context = multiprocessing.get_context("spawn")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else None
    shares: SimpleQueue[str | None] = context.SimpleQueue()
    for number in range(count):
        gpu = gpus[number % len(gpus)] if gpus else None
        shares.put(None if gpu is None else names[gpu].strip() if names else str(gpu))
    threads = max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, count)
    before = multiprocessing.active_children()
    with ProcessPoolExecutor(count, context, _begin, (shares, threads // count)) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in before:
                    process.terminate()
            raise


def _begin(shares: SimpleQueue[str | None], threads: int) -> None:
    """Take a share of the machine, before anything that uses it is imported."""
    global _device
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    Thread(target=_end_with_parent, daemon=True).start()
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
    gpu = shares.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        _device = "cuda:0"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
