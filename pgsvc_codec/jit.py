"""numba kernels that are kept on disk, whichever files they and what they call lie in.

numba looks at the file of a kernel alone to see whether what it has kept of it is out of date.  Where the kernel calls
what lies in another file, or reads a number from there, and only that file has changed, by an edit or because a newer
version has been installed over this one, numba would go on with the old code, and results would be wrong.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from shutil import rmtree
from tempfile import mkdtemp
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit

_Function = TypeVar("_Function", bound=Callable[..., Any])

passing_folders: list[str] = []  # where kernels are kept that the next process will not find


def kernel(**options: Any) -> Callable[[_Function], _Function]:
    """`numba.njit` with these options and a cache that edits of anything that the kernel is made from make void."""

    def compiled(function: _Function) -> _Function:
        try:
            made: Any = njit(cache=True, **options)(function)
        except RuntimeError:  # numba may write neither beside the module nor to the user's cache, and refuses to go on
            _keep_for_this_process()
            made = njit(cache=True, **options)(function)
        file: Any = getattr(getattr(made, "_cache", None), "_cache_file", None)
        if hasattr(file, "_source_stamp"):  # not if numba has been switched off; another numba may call it otherwise
            file._source_stamp = _Stamp(made.py_func)
        return cast(_Function, made)

    return compiled


def _keep_for_this_process() -> None:
    """Have numba keep kernels in a folder that goes when the process ends."""
    folder = mkdtemp(prefix="pgsvc-kernels-")
    atexit.register(rmtree, folder, ignore_errors=True)
    passing_folders.append(folder)
    config.CACHE_DIR = folder  # type: ignore[attr-defined]


def folder_of(compiled: Callable[..., Any]) -> str:
    """Where a kernel is kept."""
    return str(cast(Any, compiled).stats.cache_path)


class _Stamp:
    """A set of stamps of all that a kernel is made from; compared and stored as that set.

    It is gathered when it is first asked for: by then all kernels of the module have been defined.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    @cached_property
    def _stamps(self) -> frozenset[tuple[Any, ...]]:
        return frozenset(_parts(self._function, set()))

    def __eq__(self, other: object) -> bool:
        return self._stamps == other

    def __reduce__(self) -> tuple[Any, ...]:
        return frozenset, (self._stamps,)


def _parts(function: FunctionType, seen: set[FunctionType]) -> Iterator[tuple[Any, ...]]:
    """Time and size of a function's file, numbers that it reads by their names, and all parts of what it calls."""
    seen.add(function)
    stat = os.stat(function.__code__.co_filename)
    yield stat.st_mtime_ns, stat.st_size
    package = function.__module__.partition(".")[0]
    names = set(_names(function.__code__))
    values = {name: function.__globals__.get(name) for name in names}
    for module in [value for value in values.values() if isinstance(value, ModuleType)]:
        if module.__name__.partition(".")[0] == package:
            values |= {f"{module.__name__}.{name}": getattr(module, name, None) for name in names}
    for name, value in values.items():
        called = getattr(value, "py_func", getattr(value, "_defn", value))  # of a kernel, of an intrinsic
        if isinstance(called, FunctionType):
            if called.__module__.partition(".")[0] == package and called not in seen:
                yield from _parts(called, seen)
        elif isinstance(value, np.ndarray):
            yield name, value.tobytes()
        elif isinstance(value, int | float | tuple):
            yield name, repr(value)


def _names(code: CodeType) -> Iterator[str]:
    """What a function and those within it ask for by name."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
