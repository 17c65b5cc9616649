"""What Triton's interpreter lets pass and a GPU does not: watched where kernels are interpreted.

`watched_memory` looks at what kernels read and write: a GPU runs the programs of a launch in any order, and the threads
of a program at any pace.  `watched_replays` looks at what is captured as graphs: a replay repeats the launches with the
arguments that they had when they were captured, and hears nothing of the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from pgsvc_codec.render.cuda import binning, canvases, raster
from pgsvc_codec.train.cuda import births, buffers, changes, replay

Place = tuple[str, int, int]  # "own" or "kept", number or address, offset


class Access(NamedTuple):
    """What one operation of one program does."""

    addresses: NDArray[np.uint64]  # of the elements that are not masked
    size: int  # bytes of an element
    is_write: bool
    epoch: int  # barriers before it


class _Launch:
    """What the programs of a launch do to memory."""

    def __init__(self, name: str, tensors: list[torch.Tensor]) -> None:
        self.name = name
        self.programs: list[list[Access]] = []
        self.epoch = 0
        extents = sorted(_extent(tensor) for tensor in tensors if tensor.numel())
        self._begins = np.array([begin for begin, _ in extents], np.uint64)
        self._ends = np.maximum.accumulate(np.array([end for _, end in extents], np.uint64))

    def note(self, addresses: NDArray[np.uint64], size: int, *, is_write: bool) -> None:
        """An operation of the program that runs."""
        if len(addresses):
            self.programs[-1].append(Access(addresses, size, is_write, self.epoch))

    def problems(self) -> Iterator[str]:
        """What a GPU may make something else of."""
        for number, accesses in enumerate(self.programs):
            for access in accesses:
                at = np.searchsorted(self._begins, access.addresses, side="right") - 1
                if (at < 0).any() or (access.addresses + np.uint64(access.size) > self._ends[at]).any():
                    yield f"program {number} {'writes' if access.is_write else 'reads'} beyond all tensors"
            yield from (f"program {number} {problem}" for problem in _unordered(accesses))
        yield from self._races()

    def _races(self) -> Iterator[str]:
        """Places that one program writes and another one reads or writes."""
        parts = [
            (access.addresses, np.full(len(access.addresses), number), np.full(len(access.addresses), access.is_write))
            for number, accesses in enumerate(self.programs)
            for access in accesses
        ]
        if not parts:
            return
        addresses, programs, writes = (np.concatenate(part) for part in zip(*parts, strict=True))
        places, index = np.unique(addresses, return_inverse=True)
        first, last = np.full(len(places), len(self.programs)), np.full(len(places), -1)
        np.minimum.at(first, index, programs)
        np.maximum.at(last, index, programs)
        written = np.zeros(len(places), np.bool_)
        written[index[writes]] = True
        count = int((written & (first != last)).sum())
        if count:
            yield f"{count} places are written by one program, and read or written by another"


def _check_arguments(name: str, arguments: Any) -> None:
    for value in _leaves(arguments):
        if not isinstance(value, torch.Tensor) and type(value) not in (int, float, bool):
            pytest.fail(f"kernel {name}: an argument is {value!r}, which no launch takes", pytrace=False)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _unordered(accesses: list[Access]) -> Iterator[str]:
    """What a program has written and then reads or writes with no barrier in between: by other threads, perhaps."""
    written: list[NDArray[np.uint64]] = []
    epoch = -1
    for access in accesses:
        if access.epoch != epoch:
            written, epoch = [], access.epoch
        if written and np.isin(access.addresses, np.concatenate(written)).any():
            yield f"{'writes' if access.is_write else 'reads'} what it has written, without a barrier"
        if access.is_write:
            if len(np.unique(access.addresses)) < len(access.addresses):
                yield "writes a place several times at once"
            written.append(access.addresses)


@contextmanager
def watched_memory(*, backwards: bool = False) -> Iterator[list[str]]:
    """Fail where programs get in each other's way, or threads might, or kernels read and write beyond their tensors.

    Args:
        backwards: run the programs of every launch in the reverse order.

    Yields:
        The names of the kernels that have been launched, one after the other.
    """
    builder = interpreter.InterpreterBuilder
    names: list[str] = []
    launch: _Launch | None = None
    run, execute = interpreter.InterpretedFunction.run, interpreter.GridExecutor.__call__
    load, store, go_to = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx
    barrier = builder.create_barrier

    def named_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(self.fn.__name__)
        _check_arguments(names[-1], (args, kwargs))
        return run(self, *args, **kwargs)

    def watched_execute(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal launch
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        launch = _Launch(names[-1], tensors)
        try:
            execute(self, *args, **kwargs)
            problems = list(launch.problems())
            if problems:
                pytest.fail(f"kernel {launch.name}: {problems[0]} ({len(problems)} such)", pytrace=False)
        finally:
            launch = None

    def watched_go_to(self: Any, *place: int) -> None:
        if launch is not None:
            launch.programs.append([])
        if backwards:
            place = tuple(size - 1 - at for size, at in zip(self.grid_dim, place, strict=True))
        go_to(self, *place)

    def note(ptrs: Any, mask: Any, *, is_write: bool) -> None:
        if launch is not None:
            size = np.dtype(interpreter._get_np_dtype(ptrs.get_element_ty())).itemsize
            addresses, wanted = np.broadcast_arrays(ptrs.data, mask.data)
            launch.note(addresses[wanted.astype(np.bool_)], size, is_write=is_write)

    def watched_load(self: Any, ptrs: Any, mask: Any, *args: Any) -> Any:
        note(ptrs, mask, is_write=False)
        return load(self, ptrs, mask, *args)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *args: Any) -> Any:
        note(ptrs, mask, is_write=True)
        return store(self, ptrs, value, mask, *args)

    def watched_barrier(self: Any) -> None:
        if launch is not None:
            launch.epoch += 1
        barrier(self)

    def atomic(self: Any, *_: Any) -> None:
        pytest.fail(f"kernel {names[-1]}: atomics add in any order", pytrace=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "run", named_run)
        patch.setattr(interpreter.GridExecutor, "__call__", watched_execute)
        patch.setattr(builder, "set_grid_idx", watched_go_to)
        patch.setattr(builder, "create_masked_load", watched_load)
        patch.setattr(builder, "create_masked_store", watched_store)
        patch.setattr(builder, "create_barrier", watched_barrier)
        patch.setattr(builder, "create_atomic_rmw", atomic)
        patch.setattr(builder, "create_atomic_cas", atomic)
        yield names


# What has the host wait for the device, or copies from memory of the host.
_WAITING_OPERATIONS = {
    "_local_scalar_dense", "_unique2", "allclose", "bincount", "equal", "is_nonzero", "item", "lift_fresh",
    "lift_fresh_copy", "masked_select", "nonzero", "unique_consecutive", "unique_dim", "unique_dim_consecutive",
}  # fmt: skip
_WAITING_METHODS = {
    "__array__", "__bool__", "__float__", "__index__", "__int__", "cpu", "cuda", "item", "numpy", "pin_memory",
    "tolist",
}  # fmt: skip
_MASKED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class _Done(threading.local):
    work: _Work | None = None  # that this thread is about


_done = _Done()


class _Work(TorchDispatchMode):
    """What captured work does once: operations and launches, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[Any, ...]]] = []
        self._own: dict[int, int] = {}  # storages that it has made
        self._alive: list[torch.Tensor] = []  # so that no address is used twice

    def note(self, name: str, arguments: Any) -> None:
        """An operation or launch."""
        self.seen.append((name, _flat(arguments, self._place)))

    def _place(self, tensor: torch.Tensor) -> Place:
        storage = tensor.untyped_storage().data_ptr()
        if storage in self._own:
            return "own", self._own[storage], tensor.storage_offset()
        return "kept", storage, tensor.storage_offset()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [value for value in _leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        masks = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
        counted = name == "repeat_interleave" and kwargs.get("output_size") is None and len(tensors) == len(args)
        if name in _WAITING_OPERATIONS or (name in _MASKED and masks) or counted:
            raise AssertionError(f"captured work waits for the device: {name}")
        self.note(name, (args, kwargs))
        out = func(*args, **kwargs)
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        for tensor in _leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self._own[tensor.untyped_storage().data_ptr()] = len(self._alive)
                self._alive.append(tensor)
        return out


class _Methods(TorchFunctionMode):
    """Fails where captured work would read tensors back or fetch them from the host."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        moves = name == "to" and any(isinstance(value, torch.device | str) for value in _leaves((args, kwargs)))
        if _done.work is not None and (name in _WAITING_METHODS or moves):
            raise AssertionError(f"captured work waits for the device: {name}")
        return func(*args, **(kwargs or {}))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
    else:
        yield value


def _flat(value: Any, place: Callable[[torch.Tensor], Place]) -> tuple[Any, ...]:
    """What must be the same in every replay."""
    return tuple(
        (*place(leaf), leaf.dtype, tuple(leaf.shape), leaf.stride()) if isinstance(leaf, torch.Tensor) else leaf
        for leaf in _leaves(value)
    )


class _Watched:
    """Work that is captured, watched whenever it is done."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.seen: list[tuple[str, tuple[Any, ...]]] = []

    def __call__(self) -> None:
        with _Methods(), _Work() as work:
            _done.work = work
            try:
                self._work()
            finally:
                _done.work = None
        self.seen = work.seen


def _difference(first: list[tuple[str, tuple[Any, ...]]], now: list[tuple[str, tuple[Any, ...]]]) -> str | None:
    if len(first) != len(now):
        return f"{len(now)} operations, {len(first)} when it was captured"
    for number, ((name, before), (other, after)) in enumerate(zip(first, now, strict=True)):
        if name != other:
            return f"operation {number} is {other}, {name} when it was captured"
        if len(before) != len(after):
            return f"{name} has {len(after)} arguments, {len(before)} when it was captured"
        for place, (was, becomes) in enumerate(zip(before, after, strict=True)):
            if was != becomes and not (was != was and becomes != becomes):
                return f"{name}: argument {place} is {becomes}, {was} when it was captured"
    return None


@contextmanager
def watched_replays() -> Iterator[list[int]]:
    """Fail where what is captured waits for the device, or is not in every replay what it was when it was captured.

    Yields:
        Operations and launches of each replay.
    """
    replays: list[int] = []
    run, begin = interpreter.InterpretedFunction.run, replay.Replay.__init__

    def noted_run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        _check_arguments(self.fn.__name__, (args, kwargs))
        work, _done.work = _done.work, None
        if work is None:
            return run(self, *args, grid=grid, warmup=warmup, **kwargs)
        work.note(self.fn.__name__, (grid, args, kwargs))
        try:
            with torch.utils._python_dispatch._disable_current_modes():
                return run(self, *args, grid=grid, warmup=warmup, **kwargs)
        finally:
            _done.work = work

    def watched_begin(self: Any, work: Callable[[], None], device: torch.device) -> None:
        begin(self, _Watched(work), device)

    def capture(work: _Watched, device: torch.device) -> Callable[[], None]:
        first = work.seen

        def again() -> None:
            work()
            replays.append(len(work.seen))
            if problem := _difference(first, work.seen):
                raise AssertionError(f"a replay would do something else: {problem}")

        return again

    from_numpy = torch.from_numpy

    def fetch(values: NDArray[Any]) -> torch.Tensor:
        assert _done.work is None, "captured work copies from memory of the host: from_numpy"
        return from_numpy(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "run", noted_run)
        patch.setattr(replay.Replay, "__init__", watched_begin)
        patch.setattr(replay, "capture", capture)
        patch.setattr(torch, "from_numpy", fetch)
        yield replays


@contextmanager
def sizes_of_a_gpu() -> Iterator[None]:
    """Programs work on as little as on a GPU, so that there are many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binning, "_INTERPRETED_BLOCK", binning._BLOCK)
        patch.setattr(canvases, "_INTERPRETED_TILE", canvases.TILE)
        patch.setattr(raster, "_INTERPRETED_BLOCK", 1)
        for module in (births, buffers, changes):
            patch.setattr(module, "_LARGE_BLOCK", module._BLOCK)
        yield
