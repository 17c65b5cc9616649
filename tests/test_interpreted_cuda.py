"""Kernels and captured work that only an interpreter takes are found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from pgsvc_codec.render.availability import is_interpreted  # noqa: E402

if not is_interpreted():
    pytest.skip("kernels are compiled here", allow_module_level=True)

from interpreted import watched_memory, watched_replays  # noqa: E402

from pgsvc_codec.train.cuda.replay import Replay  # noqa: E402

HOST = torch.device("cpu")


@triton.jit
def _shift(values, by: tl.constexpr, block: tl.constexpr, barrier: tl.constexpr, twice: tl.constexpr):
    """Every program writes its own place; with `by` it reads that of another one."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(values + n + by)
    tl.store(values + n, value + 1)
    if barrier:
        tl.debug_barrier()
    if twice:
        tl.store(values + n, tl.load(values + n) * 2)


@pytest.mark.parametrize(
    ("programs", "options", "problem"),
    [
        (4, {"by": 0, "barrier": False, "twice": False}, None),
        (4, {"by": 0, "barrier": True, "twice": True}, None),
        (4, {"by": 0, "barrier": False, "twice": True}, "program 0 reads what it has written, without a barrier"),
        (4, {"by": 1, "barrier": True, "twice": False}, "written by one program, and read or written by another"),
        (5, {"by": 0, "barrier": True, "twice": False}, "program 4 reads beyond all tensors"),
    ],
)
def test_memory_of_triton_kernels_is_watched(programs: int, options: dict, problem: str | None) -> None:
    values = torch.zeros(20)[:17]
    with watched_memory() as names:
        if problem is None:
            _shift[programs,](values, block=4, **options)
        else:
            with pytest.raises(pytest.fail.Exception, match=problem):
                _shift[programs,](values, block=4, **options)
    assert names == ["_shift"]


def test_triton_kernels_take_no_numbers_of_numpy() -> None:
    with watched_memory(), pytest.raises(pytest.fail.Exception, match=r"argument is .*0.*, which no launch takes"):
        _shift[4,](torch.zeros(16), by=np.int64(0), block=4, barrier=True, twice=False)


def test_triton_programs_run_backwards() -> None:
    values = torch.arange(17, dtype=torch.float32)
    with watched_memory(backwards=True), pytest.raises(pytest.fail.Exception):
        _shift[4,](values, by=1, block=4, barrier=True, twice=False)
    assert values[:5].tolist() == [2.0, 3.0, 4.0, 7.0, 6.0]  # what lies behind a block has changed before it


class Scene:
    """Work of all kinds over one buffer."""

    def __init__(self) -> None:
        self.values = torch.zeros(16)
        self.number = 1.0

    def right(self) -> None:
        shares = torch.ones_like(self.values).cumsum(0)
        self.values.add_(shares.sort().values)
        _shift[4,](self.values, by=0, block=4, barrier=True, twice=False)

    def reads_back(self) -> None:
        self.values.add_(float(self.values[0]))

    def branches(self) -> None:
        if self.values.sum() >= 0:
            self.values.add_(1)

    def finds(self) -> None:
        self.values[self.values > 3] = 0.0

    def counts(self) -> None:
        self.values.add_(self.values.nonzero().shape[0])

    def is_told(self) -> None:
        self.values.add_(torch.tensor([1.0, 2.0] * 8))

    def fetches(self) -> None:
        self.values.add_(torch.from_numpy(self.values.new_zeros(16).numpy()))

    def moves(self) -> None:
        self.values.add_(self.values.to(HOST))

    def has_another_number(self) -> None:
        self.number += 1
        self.values.mul_(self.number)

    def launches_another_number(self) -> None:
        self.number += 1
        _shift[int(self.number),](self.values, by=0, block=4, barrier=True, twice=False)

    def has_another_buffer(self) -> None:
        self.old, self.values = self.values, self.values.clone()

    def does_more(self) -> None:
        for _ in range(int(self.number)):
            self.values.add_(1)
        self.number += 1


@pytest.fixture
def replays() -> Iterator[list[int]]:
    with watched_replays() as found:
        yield found


def test_cuda_graphs_of_what_is_the_same_every_time(replays: list[int]) -> None:
    scene = Scene()
    Replay(scene.right, HOST).run(3)
    assert len(replays) == 2
    assert replays[0] == replays[1] > 3
    assert scene.values.tolist() == [3 * (number + 2) for number in range(16)]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("reads_back", "waits for the device"),
        ("branches", "waits for the device"),
        ("finds", "waits for the device"),
        ("counts", "waits for the device: nonzero"),
        ("is_told", "waits for the device|from memory of the host"),
        ("fetches", "waits for the device: numpy"),
        ("moves", "waits for the device: to"),
        ("has_another_number", "mul_: argument 1 is 3.0, 2.0 when it was captured"),
        ("launches_another_number", "_shift: argument 0 is 3, 2 when"),
        ("has_another_buffer", "clone: argument 0 is .*, .* when it was captured"),
        ("does_more", "2 operations, 1 when it was captured"),
    ],
)
def test_cuda_graphs_of_what_is_not(replays: list[int], name: str, problem: str) -> None:
    work: Callable[[], None] = getattr(Scene(), name)
    with pytest.raises(AssertionError, match=problem):
        Replay(work, HOST).run(2)
