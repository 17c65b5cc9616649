"""numba kernels that are kept on disk, whichever files they and what they call lie in.

numba looks at the file of a kernel alone to see whether what it has kept of it is out of date, and so goes on with the
old code of what the kernel calls where that lies in another file that has been edited since.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(**options: Any) -> Callable[[_Function], _Function]:
    """`numba.njit` with these options and a cache that edits of imported modules of this package make void, too.

    What a kernel calls, and numbers that it reads, may lie in modules that its own has imported a function or class of.
    """

    def compiled(function: _Function) -> _Function:
        made: Any = njit(cache=True, **options)(function)
        if made is not function:  # it is if numba has been switched off
            made._cache._cache_file._source_stamp = _stamps(function.__globals__)
        return cast(_Function, made)

    return compiled


def _stamps(names: Mapping[str, Any]) -> frozenset[tuple[int, int]]:
    """Time and size of a module's file, and of those of the package whose functions and classes are among its names."""
    own = names["__name__"]
    package = own.partition(".")[0]
    stat = os.stat(names["__file__"])
    others = {str(getattr(value, "__module__", None)) for value in names.values()} - {own}
    found = [_stamps_of(module) for module in others if module.partition(".")[0] == package]
    return frozenset({(stat.st_mtime_ns, stat.st_size)}).union(*found)


@cache
def _stamps_of(module: str) -> frozenset[tuple[int, int]]:
    """`_stamps` of a module that has been imported."""
    return _stamps(vars(sys.modules[module]))
