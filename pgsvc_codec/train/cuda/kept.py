"""Buffers that outlive a fit: what was captured over them is good for the next one that is alike."""

from __future__ import annotations

from collections.abc import Callable
from threading import local
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from pgsvc_codec.render.rasterizer import Rasterizer

_LEAST_ROWS = 64

_Key = TypeVar("_Key")
_Buffers = TypeVar("_Buffers")


class Kept(local, Generic[_Key, _Buffers]):
    """Buffers of fits on rasterisers, for each thread its own.

    Args:
        most: of one rasteriser; the oldest make room for others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: WeakKeyDictionary[Rasterizer, dict[_Key, _Buffers]] = WeakKeyDictionary()

    def get(self, rasterizer: Rasterizer, key: _Key, make: Callable[[], _Buffers]) -> _Buffers:
        """Those of an earlier fit of the same key, else new ones."""
        kept = self._kept.setdefault(rasterizer, {})
        if key not in kept:
            while len(kept) >= self._most:
                del kept[next(iter(kept))]
            kept[key] = make()
        return kept[key]


def rows_for(count: int, growth: tuple[int, int]) -> int:
    """Rows for so many splats, of few different numbers: each is about `growth`, a fraction, times the one below."""
    rows = _LEAST_ROWS
    while rows < count:
        rows = rows * growth[0] // growth[1]
    return -(-rows // _LEAST_ROWS) * _LEAST_ROWS
