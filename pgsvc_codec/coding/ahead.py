"""Splats decoded by threads before somebody takes them, frame by frame: layers and GOPs at the same time.

What comes out, in which order and with which errors, does not depend on the threads: each frame of each layer is
decoded from the same bytes and the same frames before it, and whoever takes them puts them together in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Lock
from types import TracebackType
from typing import NamedTuple, Self

from numba import get_num_threads

from pgsvc_codec.coding.gop import DecodedSplats, GopDecoder
from pgsvc_codec.splats import Splats

_LEAST_AHEAD = 2  # frames, however many splats they have
_AHEAD = 8  # frames in coding order: the one shown next may wait for an anchor and for B-frames that lead to it
_MOST_SPLATS = 1 << 22  # that wait to be taken, but for the least; with what they were decoded from some 300 MiB


class _OpenGop:
    """What the threads know of a GOP."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.gop: GopDecoder | BaseException | None = None  # None: it is being read
        self.positions: list[int] = []  # per layer, in coding order, the frame that comes next
        self.busy: set[int] = set()  # layers that a thread decodes a frame of
        self.decoded: dict[tuple[int, int], Splats | BaseException] = {}  # not taken, by layer and position
        self.is_dropped = False

    def next_layer(self, end: int) -> int | None:
        """The layer that lags most behind of those that can go on, to positions before the end."""
        gop = self.gop
        if not isinstance(gop, GopDecoder):
            return None
        ready = [
            (position, layer)
            for layer, position in enumerate(self.positions)
            if position < end and layer not in self.busy and gop.is_ready(layer, position)
        ]
        return min(ready)[1] if ready else None


class _Task(NamedTuple):
    opened: _OpenGop
    layer: int | None  # to decode a frame of; None: the GOP is to be read


class SplatsAhead:
    """Decodes GOPs one after the other or, where there are more threads than layers, several at a time.

    Use it as a context manager.  The threads end with it.

    Args:
        open_gop: reads a GOP, by its index; called by any thread, once for each GOP that is come to.
        num_gops: how many there are.
        num_layers: most layers that one has, 1 or more.
        most_threads: see `gop.most_threads`; there are no more than numba may use.
    """

    def __init__(
        self,
        open_gop: Callable[[int], GopDecoder],
        num_gops: int,
        num_layers: int,
        most_threads: int | None = None,
    ) -> None:
        self._open_gop = open_gop
        self._num_gops = num_gops
        self._num_threads = min(get_num_threads(), most_threads or sys.maxsize, num_layers * num_gops)
        self._most_open = -(-self._num_threads // num_layers)
        self._open: dict[int, _OpenGop] = {}
        self._index = 0  # of the GOP whose frames are taken now
        self._position = 0  # of the frame that is
        self._waiting_splats = 0
        self._is_closed = False
        lock = Lock()  # of all this, and of what is open
        # Whoever has found a task wakes one more thread to look for another, so that a change need not wake them all.
        self._change = Condition(lock)
        self._result = Condition(lock)
        self._pool = ThreadPoolExecutor(max(self._num_threads, 1), "pgsvc-splats")

    def __enter__(self) -> Self:
        for _ in range(self._num_threads):
            self._pool.submit(self._work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        self._pool.shutdown()

    def gops(self) -> Iterator[Iterator[DecodedSplats]]:
        """The frames of each GOP, in display order; to be taken before the next GOP is asked for.

        An error in a thread, if it is no loss, is raised where that comes up which it has kept from being.
        """
        for index in range(self._num_gops):
            yield self._frames(index)
            with self._change:
                left = self._open.pop(index, None)
                if left is not None:
                    left.is_dropped = True
                    self._waiting_splats -= sum(map(_count, left.decoded.values()))
                self._index, self._position = index + 1, 0
                self._change.notify()

    def _frames(self, index: int) -> Iterator[DecodedSplats]:
        with self._result:
            while index not in self._open or self._open[index].gop is None:
                self._result.wait()
            opened = self._open[index]
        if isinstance(opened.gop, BaseException):
            raise opened.gop
        assert opened.gop is not None
        yield from opened.gop.frames(self._take)

    def _take(self, layer: int, position: int) -> Splats:
        """What has been decoded of the GOP whose turn it is, as soon as it is there."""
        decoded = self._open[self._index].decoded
        with self._result:
            if position > self._position:
                self._position = position
                self._change.notify()
            while (layer, position) not in decoded:
                self._result.wait()
            result = decoded.pop((layer, position))
            self._waiting_splats -= _count(result)
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self) -> None:
        """Do tasks until nobody takes what they result in any more."""
        while (task := self._next_task()) is not None:
            if task.layer is None:
                self._read(task.opened)
            else:
                self._decode(task.opened, task.layer)

    def _next_task(self) -> _Task | None:
        with self._change:
            while not self._is_closed:
                if (task := self._find_task()) is not None:
                    self._change.notify()
                    return task
                self._change.wait()
        return None

    def _find_task(self) -> _Task | None:
        has_room = self._waiting_splats < _MOST_SPLATS
        end = self._position + (_AHEAD if has_room else _LEAST_AHEAD) + 1
        for index in range(self._index, min(self._index + self._most_open, self._num_gops)):
            opened = self._open.get(index)
            if opened is None:
                self._open[index] = _OpenGop(index)
                return _Task(self._open[index], None)
            layer = opened.next_layer(end)
            if layer is not None:
                opened.busy.add(layer)
                return _Task(opened, layer)
            if not has_room:
                break
            end = sys.maxsize  # GOPs behind the first are decoded to their ends
        return None

    def _read(self, opened: _OpenGop) -> None:
        gop: GopDecoder | BaseException
        try:
            gop = self._open_gop(opened.index)
        except BaseException as error:
            gop = error
        with self._result:
            opened.gop = gop
            opened.positions = [0] * gop.num_layers if isinstance(gop, GopDecoder) else []
            self._result.notify()

    def _decode(self, opened: _OpenGop, layer: int) -> None:
        """The next frame of a layer that is marked as busy."""
        assert isinstance(opened.gop, GopDecoder)
        position = opened.positions[layer]
        result: Splats | BaseException
        try:
            result = opened.gop.decode(layer, position)
        except BaseException as error:
            result = error
        with self._result:
            opened.decoded[layer, position] = result
            opened.positions[layer] = sys.maxsize if isinstance(result, BaseException) else position + 1
            opened.busy.remove(layer)
            if not opened.is_dropped:
                self._waiting_splats += _count(result)
            self._result.notify()


def _count(result: Splats | BaseException) -> int:
    return len(result) if isinstance(result, Splats) else 0
