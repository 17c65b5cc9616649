"""Streams, marks, graphs and pinned memory on a GPU; the plain way in host memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from pgsvc_codec.render.cuda.device import Stream, capture, host_buffer, mark, synchronize, use  # noqa: E402


@triton.jit
def _count_up(out, size: tl.constexpr):
    tl.store(out + tl.arange(0, size), tl.arange(0, size))


def test_cuda_threads_launch_a_new_kernel_at_the_same_time(cuda_device):
    threads = 8
    start = Barrier(threads)

    def launch(size: int) -> list[int]:
        out = torch.zeros(size, dtype=torch.int32, device=cuda_device)
        start.wait()
        with use(cuda_device):
            _count_up[1,](out, size)
        return out.tolist()

    with ThreadPoolExecutor(threads) as pool:
        for size in (16, 32, 64, 128):
            assert list(pool.map(launch, [size] * threads)) == [list(range(size))] * threads


def test_cuda_work_is_captured_without_being_done(cuda_device):
    total = torch.zeros(4, device=cuda_device)

    def work() -> None:
        total.add_(torch.ones_like(total).cumsum(0))  # with memory of its own

    work()
    replay = capture(work, cuda_device)
    assert total.tolist() == [1, 2, 3, 4]
    for _ in range(3):
        replay()
    assert total.tolist() == [4, 8, 12, 16]


@pytest.mark.cuda
def test_cuda_graphs_have_nothing_of_what_other_threads_do_meanwhile(cuda_device):
    """Streams go round, so that sooner or later one of them is another thread's."""
    end = Event()

    def beside() -> bool:
        count = 0
        with Stream(cuda_device):
            total = torch.zeros(256, dtype=torch.int64, device=cuda_device)
            while not end.is_set():
                total += 1
                count += 1
                if count % 50 == 0 and total.sum().item() != 256 * count:
                    return False
            return total.sum().item() == 256 * count

    values = torch.zeros(64, dtype=torch.int64, device=cuda_device)
    values.add_(values.cumsum(0) + 1)
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(beside) for _ in range(3)]
        try:
            for number in range(40):
                values.zero_()
                replay = capture(lambda: values.add_(values.cumsum(0) + 1), cuda_device)
                replay()
                assert values.sum().item() == 64, f"graph {number}"
        finally:
            end.set()
        assert all(other.result() for other in others)


def test_cuda_streams_wait_for_marks(cuda_device):
    values = torch.ones(1 << 20, device=cuda_device)
    for _ in range(20):
        values = values * 0.5 + 1.0
    painted = mark(cuda_device)
    copy = host_buffer([1 << 20], torch.float32, cuda_device)
    with use(cuda_device), Stream(cuda_device):
        painted.hold(cuda_device)
        copy.copy_(values, non_blocking=True)
        copied = mark(cuda_device)
    copied.wait()
    assert copied.is_done
    assert painted.is_done
    synchronize(cuda_device)
    torch.testing.assert_close(copy, values.cpu())


@pytest.mark.cuda
def test_cuda_host_buffers_are_pinned(cuda_device):
    assert host_buffer((2, 3), torch.uint8, cuda_device).is_pinned()
